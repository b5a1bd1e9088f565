#!/usr/bin/env bash
# Builds the real Dockerfile, on a stand-in for the `rust` image that is made of this host's toolchain: for machines that cannot
# pull. Takes minutes. Leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."

tag=check-dockerfile
command -v docker >/dev/null || { echo "check-dockerfile.sh: there is no docker here" >&2; exit 69; }
remove() {
    docker images --quiet --filter "label=check-dockerfile" | sort -u | xargs --no-run-if-empty docker rmi --force >/dev/null
    # What the build stage has left has no name of its own. Others build at the same time: only what is made of the stand-in is ours.
    local base image
    base=$(docker images --quiet --no-trunc rust:stand-in)
    [ -n "$base" ] || return 0
    for image in $(docker images --quiet --no-trunc --filter dangling=true); do
        if docker history --quiet --no-trunc "$image" 2>/dev/null | grep --fixed-strings --line-regexp "$base" >/dev/null; then
            docker rmi "$image" >/dev/null 2>&1 || true
        fi
    done
    docker rmi --force rust:stand-in >/dev/null 2>&1 || true
}
trap remove EXIT

deploy/build.sh tools
PATH=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}")/tools/bin:$PATH
# The build has no network: what it needs is fetched here.
cargo fetch --locked
deploy/stand-in.sh rust
for name in file-puller web-server log-agent content-manager pause; do
    docker build --quiet --file deploy/Dockerfile --build-arg RUST_IMAGE=rust:stand-in --label check-dockerfile \
        --target "$name" --tag "$name:$tag" .
done
# Less optimised, so larger: what the images may weigh is held by images.sh, whose binaries are the real ones.
LARGEST=$((64 << 20)) TAG=$tag deploy/check-images.sh
