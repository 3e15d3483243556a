"""The Lambda runtime API for one process: it polls for events here and posts its answers.

<https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>; the framing of streamed answers is
in <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html>.
"""

from __future__ import annotations

import base64
import json
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any

VERSION = "/2018-06-01/runtime"
# Lambda's own limits of an answer: invocation payload, and a streamed one.
BUFFERED_BYTES_MAX = 6 * 1024 * 1024
STREAMED_BYTES_MAX = 200 * 1024 * 1024
STREAMED = "application/vnd.awslambda.http-integration-response"
PRELUDE_END = b"\0" * 8
ERROR_TRAILER = "lambda-runtime-function-error-type"


@dataclass(frozen=True)
class Event:
    """One invocation as the process sees it."""

    request_id: str
    payload: bytes
    deadline_ms: int
    function_arn: str
    trace_id: str


class End(Enum):
    """How an invocation ended."""

    ANSWERED = "answered"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    EXITED = "exited"


@dataclass(frozen=True)
class Answer:
    """What an invocation came to; `payload` is JSON or whatever the function sent."""

    payload: bytes
    end: End = End.ANSWERED


def error(kind: str, message: str, end: End = End.FAILED, trace: Sequence[str] = ()) -> Answer:
    """An error as Lambda words it."""
    body = {"errorType": kind, "errorMessage": message, "stackTrace": list(trace)}
    return Answer(json.dumps(body).encode(), end)


class RuntimeApi:
    """Serves one process on a free loopback port until `close`.

    `on_idle` is called, on a thread of its own, whenever the process waits for an event and there
    is none.
    """

    def __init__(self, on_idle: Callable[[], None]) -> None:
        self.ready: Future[None] = Future()
        self._on_idle = on_idle
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._current: tuple[str, Future[Answer]] | None = None
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.api = self
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        """The value of `AWS_LAMBDA_RUNTIME_API`."""
        return f"127.0.0.1:{self._server.server_port}"

    def put(self, event: Event) -> Future[Answer]:
        """Hands the next event to the process."""
        answer: Future[Answer] = Future()
        with self._lock:
            self._current = (event.request_id, answer)
        self._events.put(event)
        return answer

    def is_idle(self) -> bool:
        """Whether no event waits for the process."""
        return self._events.empty()

    def settle(self, request_id: str | None, answer: Answer) -> bool:
        """Ends the invocation `request_id`, or the current one; false when it has ended."""
        with self._lock:
            if self._current is None or request_id not in (None, self._current[0]):
                return False
            (_, future), self._current = self._current, None
        future.set_result(answer)
        return True

    def fail_init(self, body: bytes) -> None:
        """Notes that the process could not become ready."""
        with self._lock:
            if not self.ready.done():
                self.ready.set_exception(InitError(Answer(body, End.FAILED)))

    def next_event(self) -> Event | None:
        """Waits for the next event; `None` when the API closes."""
        with self._lock:
            if not self.ready.done():
                self.ready.set_result(None)
        if self.is_idle():
            self._on_idle()
        return self._events.get()

    def close(self) -> None:
        """Stops serving."""
        self._events.put(None)
        self._server.shutdown()
        self._server.server_close()


class InitError(Exception):
    """The process did not get as far as to ask for its first event."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.payload.decode(errors="replace"))
        self.answer = answer


class Truncated(Exception):
    """A request ended before its end, or its trailer says that it is not whole."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    api: RuntimeApi

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A process that ends cuts its connections: `Sandbox` sees its end."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Says nothing: LocalStack's log is read by people."""

    def do_GET(self) -> None:
        if self.path != f"{VERSION}/invocation/next":
            return self._reply(404)
        event = self.server.api.next_event()
        if event is None:
            self.close_connection = True
            return None
        return self._reply(
            200,
            event.payload,
            {
                "Content-Type": "application/json",
                "Lambda-Runtime-Aws-Request-Id": event.request_id,
                "Lambda-Runtime-Deadline-Ms": str(event.deadline_ms),
                "Lambda-Runtime-Invoked-Function-Arn": event.function_arn,
                "Lambda-Runtime-Trace-Id": event.trace_id,
            },
        )

    def do_POST(self) -> None:
        api = self.server.api
        words = self.path.removeprefix(VERSION).strip("/").split("/")
        try:
            body = self._body()
        except (Truncated, ValueError) as cut:
            self.close_connection = True
            api.settle(None, error("Runtime.TruncatedResponse", str(cut)))
            return None
        match words:
            case ["init", "error"]:
                api.fail_init(body)
                return self._reply(202)
            case ["invocation", request_id, "response"]:
                answer = whole(body, self.headers.get("Content-Type", ""))
                is_known = api.settle(request_id, answer)
                return self._reply(202 if is_known else 400)
            case ["invocation", request_id, "error"]:
                is_known = api.settle(request_id, Answer(body, End.FAILED))
                return self._reply(202 if is_known else 400)
        return self._reply(404)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            length = int(self.headers.get("Content-Length") or 0)
            return _exactly(self.rfile, length)
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0] or b"-", 16):
            chunks.append(_exactly(self.rfile, size))
            _exactly(self.rfile, 2)
        while trailer := self.rfile.readline().strip():
            name, _, value = trailer.decode().partition(":")
            if name.lower() == ERROR_TRAILER:
                raise Truncated(f"the function failed within its answer: {value.strip()}")
        return b"".join(chunks)

    def _reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _exactly(source: BufferedIOBase, size: int) -> bytes:
    body = source.read(size)
    if len(body) < size:
        raise Truncated(f"{len(body)} of {size} bytes came")
    return body


def whole(body: bytes, content_type: str) -> Answer:
    """The answer of a body that came whole; a streamed one is brought into the buffered form."""
    if content_type.split(";")[0].strip().lower() != STREAMED:
        if len(body) > BUFFERED_BYTES_MAX:
            return _too_large(len(body), BUFFERED_BYTES_MAX)
        return Answer(body)
    if len(body) > STREAMED_BYTES_MAX:
        return _too_large(len(body), STREAMED_BYTES_MAX)
    prelude, end, content = body.partition(PRELUDE_END)
    if not end:
        return error("Runtime.InvalidResponse", "a streamed answer without the end of its prelude")
    try:
        shape = json.loads(prelude or b"{}")
    except ValueError as wrong:
        return error("Runtime.InvalidResponse", f"the prelude is no JSON: {wrong}")
    shape.setdefault("statusCode", 200)
    shape |= {"body": base64.b64encode(content).decode(), "isBase64Encoded": True}
    return Answer(json.dumps(shape).encode())


def _too_large(size: int, limit: int) -> Answer:
    message = f"Response payload size ({size} bytes) exceeded maximum allowed ({limit} bytes)."
    return error("Function.ResponseSizeTooLarge", message)
