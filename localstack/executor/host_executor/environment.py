"""An execution environment: one sandbox at a time, kept warm, replaced when it has ended.

The counters of all environments are kept here too, and the `START`, `END` and `REPORT` lines that
Lambda writes around the log of an invocation; `Init Duration` is there for cold starts only.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .runtime_api import Answer, End, Event, InitError, error
from .sandbox import Log, Sandbox

INIT_SECS_MAX = 10.0


class Census:
    """Counts per function, and the environments there are now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, Counter[str]] = {}
        self._living: dict[str, Environment] = {}

    def count(self, function: str, what: str) -> None:
        """Adds one."""
        with self._lock:
            self._counts.setdefault(function, Counter())[what] += 1

    def born(self, environment: Environment) -> None:
        """Notes an environment."""
        with self._lock:
            self._living[environment.name] = environment

    def died(self, environment: Environment) -> None:
        """Forgets an environment."""
        with self._lock:
            self._living.pop(environment.name, None)

    def report(self) -> dict[str, object]:
        """Everything, as JSON has it."""
        with self._lock:
            counts = {name: dict(count) for name, count in self._counts.items()}
            living = list(self._living.values())
        environments = [
            {"function": e.function, "pid": e.pid, "is_busy": e.is_busy} for e in living
        ]
        return {"functions": counts, "environments": environments}


CENSUS = Census()


@dataclass
class Environment:
    """The environment `name` of `function`, whose code lies unpacked in `task_root`."""

    name: str
    function: str
    task_root: Path
    env: Mapping[str, str]
    log: Log
    init_secs_max: float = INIT_SECS_MAX
    census: Census = CENSUS
    is_busy: bool = False
    _sandbox: Sandbox | None = None
    _init_secs: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _is_closed: bool = False

    @property
    def pid(self) -> int | None:
        """The process, when there is one."""
        sandbox = self._sandbox
        return sandbox.pid if sandbox and sandbox.is_alive() else None

    def start(self) -> None:
        """Starts a process; raises `InitError` when it does not become ready."""
        started = time.monotonic()
        with self._lock:
            if self._is_closed:
                raise InitError(error("Runtime.Closed", "the environment is closed"))
            if self._sandbox is not None:
                self._sandbox.close()
            self.census.born(self)
            self.census.count(self.function, "cold_starts")
            self._sandbox = sandbox = Sandbox(self.task_root, self.env, self.log)
        try:
            sandbox.wait_until_ready(self.init_secs_max)
        except InitError:
            self.census.count(self.function, "init_errors")
            raise
        self._init_secs = time.monotonic() - started

    def invoke(self, event: Event, seconds_max: float) -> tuple[Answer, str]:
        """Runs one invocation; the answer and the log of it."""
        self.is_busy = True
        self.census.count(self.function, "invocations")
        position, started = self.log.size(), time.monotonic()
        try:
            answer = self._run(event, seconds_max)
        finally:
            self.is_busy = False
        self.census.count(self.function, answer.end.value)
        seconds = time.monotonic() - started
        return answer, self._framed(event, answer.end, seconds, self.log.since(position))

    def close(self) -> None:
        """Ends the process for good."""
        with self._lock:
            self._is_closed = True
            if self._sandbox is not None:
                self._sandbox.close()
        self.census.died(self)

    def _run(self, event: Event, seconds_max: float) -> Answer:
        if self.pid is None:
            try:
                self.start()
            except InitError as failed:
                return failed.answer
        sandbox = self._sandbox
        assert sandbox is not None, "started above"
        return sandbox.invoke(event, seconds_max)

    def _framed(self, event: Event, end: End, seconds: float, log: str) -> str:
        sandbox, init_secs = self._sandbox, self._init_secs
        self._init_secs = None
        figures = [f"Duration: {seconds * 1000:.2f} ms"]
        if init_secs is not None:
            figures.append(f"Init Duration: {init_secs * 1000:.2f} ms")
        memory = sandbox.memory_bytes_max() if sandbox else None
        if memory is not None:
            figures.append(f"Max Memory Used: {memory // 1024**2} MB")
        if end is not End.ANSWERED:
            figures.append(f"Status: {end.value}")
        if log and not log.endswith("\n"):
            log += "\n"
        about = f"RequestId: {event.request_id}"
        report = f"REPORT {about}\t" + "\t".join(figures)
        return f"START {about}\n{log}END {about}\n{report}\n"
