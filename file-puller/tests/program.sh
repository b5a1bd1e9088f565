#!/usr/bin/env bash
# Sourced by the suites beside this file: exports FILE_PULLER, the program that they test, with the places where a test ends the
# process as `kill -9` would. Taken from the folder BINARIES, or built.
if [ -z "${BINARIES-}" ]; then
    cargo build --locked --quiet --package file-puller --features fault-points
    BINARIES=${CARGO_TARGET_DIR:-target}/debug
fi
FILE_PULLER=$(realpath "$BINARIES/file-puller")
export FILE_PULLER
