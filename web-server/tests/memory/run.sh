#!/usr/bin/env bash
# Holds web-server to its memory limit: in a container of 64 MiB whose cgroup counts the kernel's part, against clients that
# would like more. Needs Docker and Python. Builds the binary statically; the image holds nothing else.
# A case fails where the container is killed, its memory passes the limit, or another client is not answered within a second; the
# 100 ms that are aimed at are printed.
#
#   web-server/tests/memory/run.sh [CASE...]      all cases, or those that are named
set -euo pipefail
cd "$(dirname "$0")/../../.."

# Optimised, but without the minutes that whole-program optimisation takes.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
target=$(rustc -vV | sed -n 's/^host: //p')
build=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}")/memory
RUSTFLAGS="-C target-feature=+crt-static" nice cargo build --quiet --release --locked --package web-server \
    --target "$target" --target-dir "$build"

context=$(mktemp --directory)
trap 'rm -r "$context"' EXIT
cp "$build/$target/release/web-server" "$context/web-server"
printf 'FROM scratch\nCOPY web-server /web-server\nENTRYPOINT ["/web-server"]\n' >"$context/Dockerfile"
docker build --quiet --tag web-server:memory-test "$context" >/dev/null

exec python3 web-server/tests/memory/cases.py web-server:memory-test "$@"
