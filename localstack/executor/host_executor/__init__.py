"""Runs the `bootstrap` of a Lambda function as a process of this machine.

- `runtime_api` is the HTTP interface that a bootstrap polls for its events.
- `sandbox` is one process behind it: init, freeze, thaw, time limit, end.
- `environment` is what Lambda calls an execution environment: a sandbox at a time, kept warm
  between invocations and replaced after a crash or a timeout.
- `executor` and `plugin` make it known to LocalStack; nothing else here imports LocalStack.

Not done: memory limits, layers, extensions, the six megabyte limit of a request, other runtimes
than `provided.*`, and the architecture a function asks for (it must be the machine's).
"""
