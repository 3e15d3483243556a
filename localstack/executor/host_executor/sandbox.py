"""One process of a function, from its start to its end.

Lambda freezes a process between invocations; so does this (SIGSTOP when it waits for an event,
SIGCONT with the next one): work that outlives its request stalls here as it does there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from concurrent.futures import TimeoutError as NotInTime
from pathlib import Path

from .runtime_api import Answer, End, Event, InitError, RuntimeApi, error

TAIL_LINES = 20


class Log:
    """What all processes of an environment print."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size

    def since(self, position: int) -> str:
        """Everything from `position` on."""
        with self.path.open("rb") as file:
            file.seek(position)
            return file.read().decode(errors="replace")

    def tail(self) -> list[str]:
        """The last lines."""
        return self.since(max(0, self.size() - 16_384)).splitlines()[-TAIL_LINES:]


class Sandbox:
    """A running `bootstrap`; `close` ends it."""

    def __init__(self, task_root: Path, env: Mapping[str, str], log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._api = RuntimeApi(on_idle=self._freeze)
        with log.path.open("ab") as out:
            # A process group of its own, so that all it starts ends with it. Not a session of its
            # own: when LocalStack dies, the kernel then ends the groups it left frozen.
            self._process = subprocess.Popen(
                [task_root / "bootstrap"],
                cwd=task_root,
                env={**env, "AWS_LAMBDA_RUNTIME_API": self._api.address},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                process_group=0,
            )
        threading.Thread(target=self._reap, daemon=True).start()

    @property
    def pid(self) -> int:
        """The process, which is also its group."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether the process runs or is frozen."""
        return self._process.poll() is None

    def memory_bytes_max(self) -> int | None:
        """The most memory the process has had, where the system tells."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return None
        peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(peaks[0]) * 1024 if peaks else None

    def wait_until_ready(self, seconds_max: float) -> None:
        """Waits for the process to ask for its first event; raises `InitError` when it does not."""
        try:
            self._api.ready.result(timeout=seconds_max)
        except NotInTime:
            self.close()
            message = f"Init timed out after {seconds_max:.2f} seconds"
            answer = error("Sandbox.Timedout", message, End.TIMED_OUT, self._log.tail())
            raise InitError(answer) from None
        except InitError:
            self.close()
            raise

    def invoke(self, event: Event, seconds_max: float) -> Answer:
        """Hands over an event and waits for its end; on a timeout the process group is killed."""
        with self._lock:
            future = self._api.put(event)
            self._signal(signal.SIGCONT)
        if not self.is_alive():
            self._api.settle(event.request_id, self._exit_error())
        try:
            return future.result(timeout=seconds_max)
        except NotInTime:
            # Killed first: from here on nothing it does can be taken for an answer.
            self.close()
            message = f"Task timed out after {seconds_max:.2f} seconds"
            text = f"RequestId: {event.request_id} Error: {message}"
            return error("Sandbox.Timedout", text, End.TIMED_OUT, self._log.tail())

    def close(self) -> None:
        """Kills the process group and stops serving it."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._api.close()

    def _freeze(self) -> None:
        with self._lock:
            if self._api.is_idle():
                self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        # A number that was given back may be another process's by now.
        if self.is_alive():
            self._signal_group(number)

    def _signal_group(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass

    def _reap(self) -> None:
        self._process.wait()
        # What the bootstrap started does not outlive it.
        self._signal_group(signal.SIGKILL)
        failed = self._exit_error()
        self._api.fail_init(failed.payload)
        self._api.settle(None, failed)

    def _exit_error(self) -> Answer:
        code = self._process.returncode
        how = f"exit status {code}"
        if code is not None and code < 0:
            how = f"signal: {signal.Signals(-code).name}"
        message = f"Runtime exited with error: {how}"
        return error("Runtime.ExitError", message, End.EXITED, self._log.tail())
