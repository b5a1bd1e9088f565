#!/usr/bin/env bash
# The live page in a real browser, over a Pod of real processes: deploy/browser/run.sh [--film | --compose] [TEST...]
#
# A TEST is a module, a class or a test, such as test_reach or test_reach.WhoCanUseIt.test_one_column_on_a_phone.
# --film writes docs/img/live.gif, and tests nothing. --compose tries the challenges on Compose, with the images of deploy/images.sh. Builds the Pod, or takes the binaries in the folder BINARIES. Installs its tools
# (requirements.txt) into the target folder, and Chromium where there is none. Fails, never skips.
set -euo pipefail
cd "$(dirname "$0")/../.."

# shellcheck source=.ci/install.sh
. .ci/install.sh
command -v chromium >/dev/null || install_packages chromium

target=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}")
tools=$target/browser-tools
install_requirements deploy/browser/requirements.txt "$tools"

if [ -z "${BINARIES-}" ]; then
    echo "== building the Pod"
    cargo build --quiet --locked --package kubelet --package web-server --package file-puller --package log-agent
    BINARIES=$target/debug
fi
BINARIES=$(realpath "$BINARIES")

echo "== the page in $(chromium --version 2>/dev/null)"
film=
if [ "${1-}" = --film ]; then
    film=$PWD/docs/img/live.gif
    set -- film
elif [ "${1-}" = --compose ]; then
    set -- test_compose
fi
tests=("$@")
if [ ${#tests[@]} -eq 0 ]; then tests=(test_happens test_shown test_challenges test_reach); fi
cd deploy/browser
export BINARIES
FILM=$film PYTHONDONTWRITEBYTECODE=1 "$tools/bin/python" -m unittest --verbose "${tests[@]}"
