#!/usr/bin/env bash
# Decodes what log-agent sends with implementations that are not ours: OpenTelemetry's own protobuf messages and MessagePack,
# both from PyPI, in a virtual environment under the target folder. Then Forward's handshake, with receivers written from the
# protocol's specification, and with false ones.
#
#   log-agent/tests/wire/run.sh
#
# `cargo test` does the same with Rust's implementations and needs no Python; this is the second opinion.
set -euo pipefail
cd "$(dirname "$0")/../../.."
target=${CARGO_TARGET_DIR:-target}
venv=$target/wire-venv
if [ -z "${BINARIES-}" ]; then
    cargo build --quiet --package log-agent
    BINARIES=$target/debug
fi
if [ ! -x "$venv/bin/python" ]; then
    echo "making $venv"
    python3 -m venv "$venv"
fi
"$venv/bin/pip" install --quiet --disable-pip-version-check "opentelemetry-proto==1.*" "msgpack==1.*" "zstandard==0.*"
"$venv/bin/python" log-agent/tests/wire/check.py "$BINARIES/log-agent"
"$venv/bin/python" log-agent/tests/wire/handshake.py "$BINARIES/log-agent"
