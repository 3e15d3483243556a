"""The executor as LocalStack 4.13 wants it: an adapter around `environment`.

LocalStack makes one executor for each execution environment it starts, and decides itself which
one an invocation goes to and when an idle one ends. What can be set is read from its environment:

- `HOST_EXECUTOR_INIT_SECS_MAX`: seconds a process may take until its first poll; 10 as on AWS.
- `HOST_EXECUTOR_ENDPOINT_URL`: what functions get as `AWS_ENDPOINT_URL` in place of LocalStack.
- `HOST_EXECUTOR_LOGS`: a folder that keeps the log of each environment; else it goes with it.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from localstack import config
from localstack.http import Response
from localstack.services.edge import ROUTER
from localstack.services.lambda_.invocation.executor_endpoint import StatusErrorException
from localstack.services.lambda_.invocation.lambda_models import FunctionVersion, InvocationResult
from localstack.services.lambda_.invocation.runtime_executor import (
    LambdaRuntimeException,
    RuntimeExecutor,
)
from werkzeug import Request

from .environment import CENSUS, INIT_SECS_MAX, Environment
from .runtime_api import End, Event, InitError
from .sandbox import Log

# Where the counters are answered, as JSON.
CENSUS_PATH = "/_host_executor/census"


@functools.cache
def _serve_census() -> None:
    def census(_: Request, **__: Any) -> Response:
        return Response(json.dumps(CENSUS.report()), mimetype="application/json")

    ROUTER.add(CENSUS_PATH, census)


class HostExecutor(RuntimeExecutor):
    """Runs one environment of a function version."""

    def __init__(self, id: str, function_version: FunctionVersion) -> None:
        super().__init__(id, function_version)
        self._environment: Environment | None = None
        # Holds the log, and what the function takes for its /tmp.
        self._files = tempfile.TemporaryDirectory(prefix="lambda-", ignore_cleanup_errors=True)

    def start(self, env_vars: dict[str, str]) -> None:
        """Starts the process; an error is one of the function's, as Lambda has it."""
        task_root = self.function_version.config.code.get_unzipped_code_location()
        if not (task_root / "bootstrap").is_file():
            raise LambdaRuntimeException("the archive holds no file `bootstrap` (provided.* only)")
        files = Path(self._files.name)
        env = {name: str(value) for name, value in env_vars.items()}
        env |= {"PATH": os.environ.get("PATH", os.defpath), "TMPDIR": str(files)}
        env |= {"LAMBDA_TASK_ROOT": str(task_root), "LAMBDA_RUNTIME_DIR": str(task_root)}
        if endpoint := os.environ.get("HOST_EXECUTOR_ENDPOINT_URL"):
            env["AWS_ENDPOINT_URL"] = endpoint
        function = self.function_version.id.function_name
        seconds = float(os.environ.get("HOST_EXECUTOR_INIT_SECS_MAX") or INIT_SECS_MAX)
        logs = Path(os.environ.get("HOST_EXECUTOR_LOGS") or files)
        logs.mkdir(exist_ok=True)
        log = Log(logs / f"{function}-{self.id}.log")
        environment = Environment(self.id, function, Path(task_root), env, log, seconds)
        self._environment = environment
        try:
            environment.start()
        except InitError as failed:
            payload = failed.answer.payload
            raise StatusErrorException("the function did not start", payload=payload) from failed

    def stop(self) -> None:
        """Ends the process and forgets its files."""
        if self._environment is not None:
            self._environment.close()
        self._files.cleanup()

    def invoke(self, payload: dict[str, str]) -> InvocationResult:
        """Runs one invocation within the function's time limit."""
        if self._environment is None:
            raise LambdaRuntimeException("invoked before it was started")
        seconds_max = float(self.function_version.config.timeout)
        event = Event(
            request_id=payload["invoke-id"],
            payload=payload["payload"].encode(),
            deadline_ms=int((time.time() + seconds_max) * 1000),
            function_arn=payload["invoked-function-arn"],
            trace_id=payload["trace-id"],
        )
        answer, log = self._environment.invoke(event, seconds_max)
        is_error = answer.end is not End.ANSWERED
        return InvocationResult(event.request_id, answer.payload, is_error, log)

    def get_logs(self) -> str:
        """Everything the environment printed."""
        return self._environment.log.since(0) if self._environment else ""

    def get_address(self) -> str:
        """The process is on this machine."""
        return "127.0.0.1"

    def get_endpoint_from_executor(self) -> str:
        """So is LocalStack."""
        return "127.0.0.1"

    def get_runtime_endpoint(self) -> str:
        """Of the interface that LocalStack's own images use; nothing here calls it."""
        return f"http://127.0.0.1:{config.GATEWAY_LISTEN[0].port}/_localstack_lambda/{self.id}"

    @classmethod
    def prepare_version(cls, function_version: FunctionVersion) -> None:
        """Unpacks the code."""
        _serve_census()
        function_version.config.code.prepare_for_execution()

    @classmethod
    def cleanup_version(cls, function_version: FunctionVersion) -> None:
        """Leaves the unpacked code where it is: another version may share it."""
