"""Deploys infra/template.yaml to LocalStack, as `sam package` and `sam deploy` do, with boto3.

    python localstack/deploy.py --endpoint URL --binaries DIR [--parameter NAME=VALUE …]

DIR holds `stele-fn-ingest` and its siblings, or a folder of that name with a `bootstrap` in it, as
cargo-lambda leaves them. Prints the outputs of the stack as JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import boto3

REPOSITORY = Path(__file__).resolve().parent.parent
TEMPLATE = REPOSITORY / "infra/template.yaml"
# Holds the code; not the store.
CODE_BUCKET = "stele-code"
# The only places that name local files.
CODE_URI = re.compile(r"(?m)^(\s*CodeUri:\s*)\S*/(stele-fn-[a-z]+)/?\s*$")
DEPLOY_SECS_MAX = 120


class Failed(Exception):
    """The stack could not be made."""


def client(service: str, endpoint: str) -> Any:
    """A client of LocalStack, whatever the environment says."""
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def archive(binary: Path) -> bytes:
    """A deployment package with `binary` as `bootstrap`, stripped where there is a `strip`."""
    with tempfile.TemporaryDirectory() as folder:
        bootstrap = Path(folder) / "bootstrap"
        shutil.copy(binary, bootstrap)
        if strip := shutil.which("strip"):
            subprocess.run([strip, bootstrap], check=True)
        packed = io.BytesIO()
        # Not compressed: it travels over loopback.
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as file:
            file.write(bootstrap, "bootstrap")
        return packed.getvalue()


def find(binaries: Path, name: str) -> Path:
    """The file of a function."""
    for path in (binaries / name / "bootstrap", binaries / name):
        if path.is_file():
            return path
    raise Failed(f"{binaries} holds neither {name}/bootstrap nor {name}")


def package(template: str, binaries: Path, s3: Any) -> str:
    """Uploads the code of each function once and returns the template that names it."""
    s3.create_bucket(Bucket=CODE_BUCKET)
    uploaded: dict[str, str] = {}
    for name in sorted({match[2] for match in CODE_URI.finditer(template)}):
        body = archive(find(binaries, name))
        key = f"{name}-{hashlib.sha256(body).hexdigest()[:16]}.zip"
        s3.put_object(Bucket=CODE_BUCKET, Key=key, Body=body)
        uploaded[name] = f"s3://{CODE_BUCKET}/{key}"
    if not uploaded:
        raise Failed("the template names no function's code")
    return CODE_URI.sub(lambda match: match[1] + uploaded[match[2]], template)


def deploy(
    endpoint: str, binaries: Path, parameters: dict[str, str], stack: str = "stele"
) -> dict[str, str]:
    """Makes the stack, waits for it and returns its outputs."""
    s3, formation = client("s3", endpoint), client("cloudformation", endpoint)
    template = package(TEMPLATE.read_text(), binaries, s3)
    # A template in the request may have 51,200 bytes at most.
    s3.put_object(Bucket=CODE_BUCKET, Key="template.yaml", Body=template.encode())
    is_arm = platform.machine() in ("arm64", "aarch64")
    given = {"Architecture": "arm64" if is_arm else "x86_64"} | parameters
    formation.create_stack(
        StackName=stack,
        TemplateURL=f"{endpoint}/{CODE_BUCKET}/template.yaml",
        Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in given.items()],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    wait(formation, stack)
    outputs = formation.describe_stacks(StackName=stack)["Stacks"][0]["Outputs"]
    return {output["OutputKey"]: output["OutputValue"] for output in outputs}


def wait(formation: Any, stack: str) -> None:
    """Waits for the end of the deployment; an error says which resource failed and why."""
    end = time.monotonic() + DEPLOY_SECS_MAX
    status = "unknown"
    while time.monotonic() < end:
        status = formation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
        if status == "CREATE_COMPLETE":
            return
        if not status.endswith("_IN_PROGRESS"):
            break
        time.sleep(0.2)
    events = formation.describe_stack_events(StackName=stack)["StackEvents"]
    reasons = [
        f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}"
        for event in events
        if event["ResourceStatus"].endswith("FAILED")
    ]
    raise Failed(f"the stack {stack} is {status}\n" + "\n".join(reasons))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--endpoint", required=True, help="LocalStack, like http://127.0.0.1:4566")
    parser.add_argument("--binaries", required=True, type=Path, help="where the functions lie")
    parser.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE")
    asked = parser.parse_args()
    parameters = dict(text.split("=", 1) for text in asked.parameter)
    try:
        print(json.dumps(deploy(asked.endpoint, asked.binaries, parameters)))
    except Failed as failed:
        print(failed, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
