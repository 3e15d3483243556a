"""Brings up all of Stele on this machine and tries it out, step by step.

LocalStack takes the place of AWS; the functions are the real binaries, deployed with
infra/template.yaml. Without Docker they run as processes of this machine, so they must be built for
it; nothing is left behind but what was built.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
BUCKET = "stele-data"
SERVICES = "s3,lambda,cloudformation,events,iam,sts,logs,sqs,cloudwatch,kms"
START_SECS_MAX = 120
RULE_SECS_MAX = 150
AWS_ENV = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
}


class Failed(Exception):
    """A step did not do what it should; the message is for the user."""


def say(text: str) -> None:
    """Prints a line at once."""
    print(text, flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Says what is done, and how long it took."""
    started = time.monotonic()
    say(f"==> {text}")
    yield
    say(f"    {time.monotonic() - started:.1f} s")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="localstack/up", description=__doc__)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--debug", action="store_true", help="build with cargo build, unoptimized")
    how.add_argument(
        "--binaries",
        type=Path,
        metavar="DIR",
        help="build nothing; DIR holds stele and stele-fn-*",
    )
    parser.add_argument(
        "--docker", action="store_true", help="LocalStack and functions in containers"
    )
    parser.add_argument("--once", action="store_true", help="end when all steps are done")
    parser.add_argument("--port", type=int, default=4566, help="of LocalStack (%(default)s)")
    return parser.parse_args()


def build(asked: argparse.Namespace) -> tuple[Path, Path]:
    """Builds what was asked for: the folder of the functions, and the command `stele`."""
    if asked.binaries:
        return asked.binaries, asked.binaries / "stele"
    target = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
    if asked.debug:
        with step("cargo build --workspace --bins"):
            call(["cargo", "build", "--quiet", "--workspace", "--bins"])
        return target / "debug", target / "debug/stele"
    is_arm = platform.machine() in ("arm64", "aarch64")
    functions = ["functions/build", "--sizes", "--arm64" if is_arm else "--x86-64"]
    with step(" ".join(functions)):
        call(functions)
    with step("cargo build --release --bin stele"):
        call(["cargo", "build", "--quiet", "--release", "--bin", "stele"])
    return target / "lambda", target / "release/stele"


def call(command: Sequence[str]) -> None:
    """Runs a command to its end, in the repository."""
    done = subprocess.run(command, cwd=REPOSITORY)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: exit code {done.returncode}")


@contextmanager
def host_localstack(port: int) -> Iterator[str]:
    """LocalStack as a process of this machine, its functions likewise; ends with the block."""
    # With the functions' logs and all data: nothing of it stays.
    files = Path(tempfile.mkdtemp(prefix="stele-localstack-"))
    env = os.environ | {
        "FILESYSTEM_ROOT": str(files / "root"),
        "TMPDIR": str(files),
        # The plain form of the address would listen on every interface.
        "GATEWAY_LISTEN": f"[::ffff:127.0.0.1]:{port}",
        "DNS_ADDRESS": "0",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "DISABLE_EVENTS": "1",
        "STRICT_SERVICE_LOADING": "1",
        "SERVICES": SERVICES,
        "LAMBDA_RUNTIME_EXECUTOR": "host",
        "LAMBDA_LIMITS_CODE_SIZE_UNZIPPED": "2000000000",
        "HOST_EXECUTOR_LOGS": str(files / "functions"),
    }
    with (files / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "localstack.runtime.main"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C is for this program, which then ends the server.
            process_group=0,
        )
    try:
        endpoint = f"http://127.0.0.1:{port}"
        wait_for_localstack(endpoint, server, files / "log")
        say(f"    its log is {files}/log, those of the functions are in {files}/functions")
        yield endpoint
    finally:
        server.terminate()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        shutil.rmtree(files, ignore_errors=True)


@contextmanager
def docker_localstack() -> Iterator[str]:
    """LocalStack of compose.yaml, which runs each function in a container."""
    compose = ["docker", "compose", "--file", "localstack/compose.yaml"]
    call([*compose, "up", "--detach", "--wait", "localstack"])
    try:
        yield "http://127.0.0.1:4566"
    finally:
        call([*compose, "down", "--volumes"])


def wait_for_localstack(endpoint: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until the server answers."""
    end = time.monotonic() + START_SECS_MAX
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{endpoint}/_localstack/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    said = log.read_text(errors="replace")[-4000:]
    raise Failed(f"LocalStack does not answer on {endpoint}:\n{said}")


class Url:
    """A function URL. Its name needs no name server: the request goes to LocalStack itself."""

    def __init__(self, endpoint: str, url: str, token: str) -> None:
        self.endpoint, self.token = endpoint, token
        self.host = url.split("/")[2]

    def post(self, path: str, body: str) -> str:
        """Posts a text; an answer that is no success is an error."""
        headers = {
            "Host": self.host,
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "text/plain",
        }
        request = urllib.request.Request(self.endpoint + path, body.encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return str(answer.read(), "utf-8")
        except urllib.error.HTTPError as refused:
            said = refused.read().decode(errors="replace")
            raise Failed(f"POST {path}: {refused.code} {said}") from refused

    def curl(self, path: str, body: str) -> str:
        """The same request for a shell."""
        return (
            f"curl -H 'Host: {self.host}' -H 'Authorization: Bearer {self.token}' \\\n"
            f"       -H 'Content-Type: text/plain' --data-binary \"{body}\" '{self.endpoint}{path}'"
        )


def samples() -> str:
    """Two hours of two hosts, one sample a minute, ending with the hour before this one."""
    start = int(time.time()) // 3600 * 3600 - 2 * 3600
    return "".join(
        f"cpu,host={host} usage={base + minute % 10} {start + minute * 60}\n"
        for host, base in [("a", 10), ("b", 50)]
        for minute in range(120)
    )


def try_out(endpoint: str, outputs: Mapping[str, str], stele: Path) -> tuple[Url, Url]:
    """Writes, reads, waits for the schedule and reads again."""
    env = os.environ | AWS_ENV | {"AWS_ENDPOINT_URL": endpoint}
    with step("stele token create"):
        create = [str(stele), "token", "create", "--store", outputs["Store"]]
        create += ["--scope", "ingest,query"]
        made = subprocess.run(create, env=env, capture_output=True, text=True)
        if made.returncode:
            raise Failed(made.stderr)
        token = made.stdout.strip()
    ingest = Url(endpoint, outputs["IngestUrl"], token)
    query = Url(endpoint, outputs["QueryUrl"], token)
    body = samples()
    with step(f"{body.count(chr(10))} samples of line protocol to the ingest URL"):
        ingest.post("/write?precision=s", body)
    by_host = (
        "SELECT tags->>'host' AS host, sum(count) AS samples, sum(sum) AS total, max(max) AS peak "
        "FROM rollup_60m WHERE metric = 'cpu.usage' GROUP BY host ORDER BY host"
    )
    with step("SQL to the query URL, before any job has run"):
        before = query.post("/sql", by_host)
        say(f"    {before.strip()}")
    absorbed = "SELECT count(*) AS n FROM ledger WHERE batch IS NOT NULL"
    with step("the schedule, every minute: compact absorbs and seals"):
        end = time.monotonic() + RULE_SECS_MAX
        while not json.loads(query.post("/sql", absorbed))[0]["n"]:
            if time.monotonic() > end:
                raise Failed(f"the schedule has not fired in {RULE_SECS_MAX} s")
            time.sleep(1)
    with step("the same SQL again, after compaction"):
        after = query.post("/sql", by_host)
        say(f"    {after.strip()}")
        if before != after:
            raise Failed("the answer has changed")
    return ingest, query


def run(asked: argparse.Namespace) -> None:
    """All of it."""
    # Not before the help was given, which needs no boto3.
    import deploy

    binaries, stele = build(asked)
    server = docker_localstack() if asked.docker else host_localstack(asked.port)
    say("==> LocalStack")
    with server as endpoint:
        with step("the stack of infra/template.yaml"):
            parameters = {"BucketName": BUCKET, "SealDelaySecs": "0", "Snapshots": "off"}
            try:
                outputs = deploy.deploy(endpoint, binaries, parameters)
            except deploy.Failed as failed:
                raise Failed(str(failed)) from failed
            for name in ("IngestUrl", "QueryUrl", "Store"):
                say(f"    {name} {outputs[name]}")
        ingest, query = try_out(endpoint, outputs, stele)
        if asked.once:
            say("==> all of it works")
            return
        exports = AWS_ENV | {"AWS_ENDPOINT_URL": endpoint}
        say("==> up until Ctrl-C; write, read, and look at the store:\n")
        say("  " + ingest.curl("/write", "cpu,host=c usage=7"))
        say("  " + query.curl("/sql", "SELECT * FROM samples LIMIT 3"))
        say("  export " + " ".join(f"{name}={value}" for name, value in exports.items()))
        say(f"  {stele} sql --store {outputs['Store']} 'SELECT * FROM coverage'")
        signal.pause()


def main() -> int:
    """Exit code 0: every step did what it should."""
    asked = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        run(asked)
    except Failed as failed:
        print(failed, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("")
    return 0


if __name__ == "__main__":
    sys.exit(main())
