#!/usr/bin/env bash
# The live page in a real browser, over a Pod of real processes: deploy/browser/run.sh [--screenshot] [TEST...]
#
# --screenshot also writes docs/pod-page.png. Installs its tools (requirements.txt) into the target folder, and Chromium where
# there is none. Fails, never skips.
set -euo pipefail
cd "$(dirname "$0")/../.."

if ! command -v chromium >/dev/null; then
    echo "== installing Chromium"
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update --quiet=2
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install --quiet=2 --no-install-recommends --yes chromium
fi

target=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}")
tools=$target/browser-tools
if ! cmp --silent deploy/browser/requirements.txt "$tools/requirements.txt"; then
    echo "== installing the tools"
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check --requirement deploy/browser/requirements.txt
    cp deploy/browser/requirements.txt "$tools/requirements.txt"
fi

echo "== building the Pod"
cargo build --quiet --locked --package pod --package web-server --package file-puller --package log-agent

echo "== the page in $(chromium --version 2>/dev/null)"
screenshot=
if [ "${1-}" = --screenshot ]; then
    screenshot=$PWD/docs/pod-page.png
    shift
fi
BINARIES=$target/debug SCREENSHOT=$screenshot "$tools/bin/python" deploy/browser/test_page.py --verbose "$@"
