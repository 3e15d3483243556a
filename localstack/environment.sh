# Sourced by run and up: LocalStack from PyPI, locked by hash, and the executor of functions.
# Leaves the interpreter in $python and what goes to PYTHONPATH in $executor.

requirements=(tests/requirements.txt tests/requirements-localstack-sources.txt)
environments="${CARGO_TARGET_DIR:-target}/localstack"

digest_of() { cat "$@" | cksum | tr -d ' '; }

environment="$environments/venv-$(digest_of "${requirements[@]}")"
python="$environment/bin/python"
if [ ! -f "$environment/ready" ]; then
    echo "installing LocalStack into $environment" >&2
    rm -rf "$environment"
    python3 -m venv "$environment"
    # Of several files each is installed before the next, which is built with what it brings.
    for file in "${requirements[@]}"; do
        "$python" -m pip install --quiet --no-deps --no-build-isolation \
            --disable-pip-version-check --require-hashes -r "$file"
    done
    touch "$environment/ready"
fi

executor="$environments/executor-$(digest_of localstack/executor/pyproject.toml localstack/executor/host_executor/*.py)"
if [ ! -f "$executor/ready" ]; then
    rm -rf "$executor"
    # A build leaves its own files beside the sources.
    sources="$(mktemp -d)"
    cp -r localstack/executor/. "$sources"
    "$python" -m pip install --quiet --no-deps --no-build-isolation \
        --disable-pip-version-check --target "$executor" "$sources"
    rm -rf "$sources"
    touch "$executor/ready"
fi
