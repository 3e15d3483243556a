"""What LocalStack finds by the entry point; chosen with `LAMBDA_RUNTIME_EXECUTOR=host`."""

from __future__ import annotations

from localstack.services.lambda_.invocation.plugins import RuntimeExecutorPlugin
from localstack.services.lambda_.invocation.runtime_executor import RuntimeExecutor


class HostExecutorPlugin(RuntimeExecutorPlugin):
    """Runs functions as processes of this machine."""

    name = "host"

    def load(self, *_: object, **__: object) -> type[RuntimeExecutor]:
        """Imports the executor only when it is chosen."""
        from .executor import HostExecutor

        return HostExecutor
