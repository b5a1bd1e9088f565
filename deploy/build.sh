#!/bin/sh
# Builds the static binaries that the images hold; the Dockerfile and images.sh both call it.
#
#   deploy/build.sh tools           installs what the build needs beside the toolchain, into the target folder
#   deploy/build.sh binaries OUT    builds everything that goes into an image, into OUT
#
# POSIX sh: the image that it runs in need not have more.
set -eu
cd "$(dirname "$0")/.."

# Writes the list of dependencies into each binary, where image scanners read it.
AUDITABLE=0.7.7

build=${CARGO_TARGET_DIR:-target}
PATH="$build/tools/bin:$PATH"

case "${1-}" in
tools)
    cargo auditable --version >/dev/null 2>&1 ||
        cargo install cargo-auditable --quiet --locked --version "$AUDITABLE" --root "$build/tools"
    ;;
binaries)
    out=${2:?where to}
    # Naming the target keeps the flag away from build scripts and procedural macros, which cannot be static.
    target=$(rustc -vV | sed -n 's/^host: //p')
    # A static program moves its own addresses when it starts. Packed, their list takes 3 KB instead of 230, all of which is read.
    RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs" cargo auditable build --release --locked --target "$target" \
        --package file-puller --package web-server --package log-agent --package pause
    mkdir -p "$out/empty"
    for name in file-puller web-server log-agent pause; do
        install -m 0555 "$build/$target/release/$name" "$out/$name"
    done
    ;;
*)
    echo "usage: $0 tools | binaries OUT" >&2
    exit 64
    ;;
esac
