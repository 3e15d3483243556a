"""Sizes, cold starts and memory of the built functions, and whether they keep their limits.

A function runs as the service runs it: as a process that asks the runtime interface for its
next event. The interface here is a server on loopback, so what is measured is the function: from
its start to its first question (ready), from its start to its first answer, and the greatest
resident memory. The store is a directory.

Under load: ingest takes requests as large as the service lets through, compact all of that at once, query
answers over all of it, and protect reads every object, each with the memory of every size class.
"""

import argparse
import http.server
import json
import os
import platform
import queue
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
RUNS = 7
# The service allows a request 6 MB, and an invocation 15 minutes.
LOAD_REQUESTS = 40
LOAD_REQUEST_BYTES = 5_900_000
LOAD_SECS = 900
TEMPLATE = Path(__file__).resolve().parent.parent / "infra/template.yaml"


def memory_of_classes() -> dict[str, dict[str, int]]:
    """The memory of each function in each size class of the template, MiB."""
    classes: dict[str, dict[str, int]] = {}
    for line in TEMPLATE.read_text().splitlines():
        if found := re.fullmatch("    (small|medium|large):", line):
            of_class = classes.setdefault(found[1], {})
        elif found := re.fullmatch(r"      (\w+)Memory: (\d+)", line):
            of_class[found[1].lower()] = int(found[2])
    return classes


MEMORY_MIB = memory_of_classes()


@dataclass(frozen=True)
class Limit:
    """What a function may take; `None` is not limited."""

    zip_mib: int
    ready_ms: int | None
    answer_ms: int | None


LIMITS = {
    "ingest": Limit(zip_mib=6, ready_ms=10, answer_ms=None),
    "query": Limit(zip_mib=40, ready_ms=None, answer_ms=120),
    "compact": Limit(zip_mib=40, ready_ms=None, answer_ms=None),
    "protect": Limit(zip_mib=40, ready_ms=None, answer_ms=None),
}


def zipped(bootstrap: Path, target: Path) -> int:
    """Packs `bootstrap` as it is deployed; the bytes of the file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        entry = zipfile.ZipInfo("bootstrap", (1980, 1, 1, 0, 0, 0))
        entry.external_attr = 0o755 << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(entry, bootstrap.read_bytes())
    return target.stat().st_size


class Interface(http.server.ThreadingHTTPServer):
    """The service's runtime interface for one process: `events` one after the other."""

    daemon_threads = True

    def __init__(self, events: list[dict], secs: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.secs = secs
        self.events: queue.Queue[dict] = queue.Queue()
        for event in events:
            self.events.put(event)
        self.asked: queue.Queue[float] = queue.Queue()
        self.answered: queue.Queue[tuple[float, bytes]] = queue.Queue()

    def handle_error(self, request: object, client_address: object) -> None:
        """A process that is killed leaves its connection behind."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Hands out events, and takes what comes back."""

    protocol_version = "HTTP/1.1"
    server: Interface

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.put(time.monotonic())
        # After the last one the process waits, as it does between two invocations.
        body = json.dumps(self.server.events.get()).encode()
        deadline_ms = int((time.time() + self.server.secs) * 1000)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("lambda-runtime-aws-request-id", "00000000-0000-0000-0000-000000000001")
        self.send_header("lambda-runtime-deadline-ms", str(deadline_ms))
        self.send_header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:here:0:function:f")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.body()
        self.server.answered.put((time.monotonic(), body))
        self.send_response(202)
        self.send_header("content-length", "0")
        self.end_headers()

    def body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b""
        while length := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(length)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body


def url_event(path: str, token: str, body: str) -> dict:
    """A POST to a function URL, as the service words it."""
    http_part = {
        "method": "POST",
        "path": path,
        "protocol": "HTTP/1.1",
        "sourceIp": "127.0.0.1",
        "userAgent": "measure",
    }
    about = {
        "http": http_part,
        "accountId": "anonymous",
        "apiId": "f",
        "domainName": "f",
        "domainPrefix": "f",
        "requestId": "1",
        "routeKey": "$default",
        "stage": "$default",
        "time": "01/Jan/2026:00:00:00 +0000",
        "timeEpoch": 0,
    }
    headers = {"host": "f", "authorization": f"Bearer {token}", "content-type": "text/plain"}
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": headers,
        "requestContext": about,
        "body": body,
        "isBase64Encoded": False,
    }


def load_request(number: int) -> str:
    """As many samples as a request may hold: ten fields of each of 100 hosts, every ten seconds."""
    start = int(time.time()) // 86400 * 86400 - 86400 + number * 1000
    fields = ",".join(f"usage_{n}={{}}" for n in range(10))
    lines: list[str] = []
    size = 0
    for n in range(1_000_000):
        values = ((n * (field + 7)) % 101 for field in range(10))
        at_ns = (start + n // 100 * 10) * 10**9
        line = f"cpu,host=h{n % 100},rack=r{n % 7} {fields.format(*values)} {at_ns}"
        size += len(line) + 1
        if size > LOAD_REQUEST_BYTES:
            break
        lines.append(line)
    return "\n".join(lines)


def line_protocol(minute: int) -> str:
    """600 samples: one of each of 600 series, `minute` minutes ago."""
    at_ns = (int(time.time()) // 60 - minute) * 60 * 10**9
    rows = (f"cpu,host=h{n % 100},core=c{n // 100} usage={n % 97}.25 {at_ns}" for n in range(600))
    return "\n".join(rows)


def run(
    bootstrap: Path, store: str, events: list[dict], memory_mib: int, secs: int = 60
) -> dict[str, float]:
    """One process: its start, its first answer, and its memory after the last."""
    interface = Interface(events, secs)
    threading.Thread(target=interface.serve_forever, daemon=True).start()
    environment = {
        "PATH": os.environ["PATH"],
        "STELE_STORE": store,
        "STELE_LOG": "warn",
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{interface.server_port}",
        "AWS_LAMBDA_FUNCTION_NAME": "f",
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_mib),
        "AWS_REGION": "us-east-1",
    }
    begun = time.monotonic()
    process = subprocess.Popen([bootstrap], env=environment, stdout=subprocess.DEVNULL)
    try:
        ready = interface.asked.get(timeout=60) - begun
        answers = [interface.answered.get(timeout=secs) for _ in events]
        status = Path(f"/proc/{process.pid}/status").read_text()
    finally:
        process.kill()
        process.wait()
        interface.shutdown()
        interface.server_close()
    for _, body in answers:
        check(bootstrap, body)
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return {
        "ready_ms": ready * 1000,
        "answer_ms": (answers[0][0] - begun) * 1000,
        "peak_mib": int(peak.split()[1]) / 1024,
    }


def check(bootstrap: Path, answer: bytes) -> None:
    """A figure of a failed request would be worth nothing."""
    # A streamed answer begins with its head, and eight zero bytes.
    head = json.loads(answer.split(b"\0" * 8)[0])
    status = head.get("statusCode", 200)
    if "errorType" in head or not 200 <= status < 300:
        sys.exit(f"{bootstrap} answered {answer[:500]!r}")


SQL = """
SELECT tags->>'host' AS host, count(*) AS n, avg(value) AS mean
FROM samples WHERE metric = 'cpu.usage' GROUP BY 1 ORDER BY 1
"""


def measured(built: Path, store: str, token: str, names: list[str]) -> dict[str, dict[str, float]]:
    """The median of several cold starts of each function, on a store that ingest has filled."""
    batches = [url_event("/write", token, line_protocol(minute)) for minute in range(180)]
    query = url_event("/sql", token, SQL)
    events = {
        "ingest": batches[:1],
        "compact": [{"job": "compact"}],
        "query": [query] * 10,
        "protect": [{"job": "sweep"}],
    }
    figures = {}
    for name, of_name in events.items():
        if name not in names:
            continue
        bootstrap = built / f"stele-fn-{name}" / "bootstrap"
        memory = MEMORY_MIB["small"][name]
        first = run(bootstrap, store, batches if name == "ingest" else of_name, memory)
        runs = [run(bootstrap, store, of_name, memory) for _ in range(RUNS)]
        figures[name] = {
            "ready_ms": statistics.median(one["ready_ms"] for one in runs),
            "answer_ms": statistics.median(one["answer_ms"] for one in runs),
            "peak_mib": max(one["peak_mib"] for one in [first, *runs]),
        }
    return figures


LOAD_SQL = """
SELECT time_bucket('5 minutes', ts) AS at, metric, tags->>'host' AS host,
       count(*) AS n, avg(value) AS mean, max(value) AS peak
FROM samples GROUP BY 1, 2, 3 ORDER BY mean DESC LIMIT 10000
"""


def loaded(built: Path, root: Path, names: list[str]) -> list[str]:
    """The greatest memory of each function under load, in each size class; what passed its class."""
    filled, token = new_store(root)
    ingest = built / "stele-fn-ingest" / "bootstrap"
    requests = [url_event("/write", token, load_request(n)) for n in range(LOAD_REQUESTS)]
    run(ingest, filled, requests, MEMORY_MIB["small"]["ingest"], LOAD_SECS)
    events = {
        "ingest": requests[:3],
        "compact": [{"job": "compact"}],
        "query": [url_event("/sql", token, LOAD_SQL)],
        "protect": [{"job": "verify"}],
    }
    over = []
    for size, memory in MEMORY_MIB.items():
        store = root / size
        shutil.copytree(filled, store)
        for name in [name for name in events if name in names]:
            bootstrap = built / f"stele-fn-{name}" / "bootstrap"
            peak = run(bootstrap, str(store), events[name], memory[name], LOAD_SECS)["peak_mib"]
            line = f"{size:<7} {name:<8} {peak:>6.0f} of {memory[name]:>4} MiB under load"
            print(line, file=sys.stderr, flush=True)
            if peak > memory[name]:
                over.append(f"{name}: {peak:.0f} MiB, over the {memory[name]} MiB of {size}")
        shutil.rmtree(store)
    return over


def new_store(root: Path) -> tuple[str, str]:
    """A directory that holds a token, and the token."""
    store = root / "store"
    store.mkdir()
    command = ["cargo", "run", "--quiet", "--locked", "--package", "stele-lambda"]
    command += ["--example", "token", "--", str(store)]
    made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return str(store), made.stdout.strip()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--lambda", dest="built", type=Path, required=True)
    arguments.add_argument("--zips", type=Path, required=True)
    arguments.add_argument("--architecture", choices=["x86-64", "arm64"], required=True)
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--sizes", action="store_true", help="run nothing")
    arguments.add_argument("--load", action="store_true", help="also under load; takes minutes")
    arguments.add_argument("names", nargs="+", choices=list(LIMITS))
    given = arguments.parse_args()
    runs_here = (platform.machine() == "x86_64") == (given.architecture == "x86-64")
    figures: dict[str, dict[str, float]] = {}
    if runs_here and not given.sizes:
        with tempfile.TemporaryDirectory() as root:
            store, token = new_store(Path(root))
            figures = measured(given.built, store, token, given.names)
    passed = []
    if runs_here and given.load:
        with tempfile.TemporaryDirectory() as root:
            passed += loaded(given.built, Path(root), given.names)
    for name in given.names:
        bootstrap = given.built / f"stele-fn-{name}" / "bootstrap"
        of_name = figures.setdefault(name, {})
        of_name["binary_mib"] = bootstrap.stat().st_size / MIB
        target = given.zips / f"stele-fn-{name}" / "bootstrap.zip"
        of_name["zip_mib"] = zipped(bootstrap, target) / MIB
        limits = LIMITS[name]
        pairs = [
            ("zip_mib", limits.zip_mib),
            ("ready_ms", limits.ready_ms),
            ("answer_ms", limits.answer_ms),
            ("peak_mib", MEMORY_MIB["small"][name]),
        ]
        for what, limit in pairs:
            if limit is not None and of_name.get(what, 0) > limit:
                passed.append(f"{name}: {what} is {of_name[what]:.1f}, over its limit of {limit}")
    show(given.architecture, figures, given.json)
    for line in passed:
        print(line, file=sys.stderr)
    return 1 if passed else 0


def show(architecture: str, figures: dict[str, dict[str, float]], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"architecture": architecture, "functions": figures}))
        return
    columns = [("binary_mib", 11), ("zip_mib", 9), ("ready_ms", 9), ("answer_ms", 10), ("peak_mib", 9)]
    print(f"{architecture:<8} " + " ".join(f"{key:>{width}}" for key, width in columns))
    for name, of_name in figures.items():
        cells = (f"{of_name[key]:>{width}.1f}" if key in of_name else " " * width for key, width in columns)
        print(f"{name:<8} " + " ".join(cells))


if __name__ == "__main__":
    sys.exit(main())
