#!/usr/bin/env bash
# An image with one static binary and nothing else, for tests that need a memory limit of the kernel's: deploy/test-image.sh NAME TAG
#
# Takes the binary from the folder STATIC, such as what deploy/build.sh has built. Without it, builds one that is optimised, but
# without the minutes that whole-program optimisation takes.
set -euo pipefail
cd "$(dirname "$0")/.."

name=${1:?which binary} tag=${2:?which tag}
if [ -z "${STATIC-}" ]; then
    export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
    target=$(rustc -vV | sed -n 's/^host: //p')
    build=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}")/memory
    RUSTFLAGS="-C target-feature=+crt-static" nice cargo build --quiet --release --locked --package "$name" \
        --target "$target" --target-dir "$build"
    STATIC=$build/$target/release
fi

context=$(mktemp --directory)
trap 'rm -r "$context"' EXIT
cp "$STATIC/$name" "$context/$name"
printf 'FROM scratch\nCOPY %s /%s\nENTRYPOINT ["/%s"]\n' "$name" "$name" "$name" >"$context/Dockerfile"
docker build --quiet --tag "$tag" "$context" >/dev/null
