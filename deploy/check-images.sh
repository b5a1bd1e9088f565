#!/usr/bin/env bash
# What every image must be, however it was made: deploy/check-images.sh [docker | podman]. TAG=… names other images than
# :dev, LARGEST=… another limit than 8 MiB (11 MiB for file-puller, which speaks Git and OCI as well).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=deploy/podman/environment.sh
. deploy/podman/environment.sh

engine=${1:-docker}
tag=${TAG:-dev}
failed=0

expect() { # what, expected, found
    if [ "$2" != "$3" ]; then
        echo "FAIL  $image: $1 is '$3', not '$2'"
        failed=1
    fi
}
ask() { "$engine" image inspect --format "$1" "$image"; }

for name in file-puller web-server log-agent content-manager pause; do
    image=$name:$tag
    binary=/$name
    if [ "$name" = content-manager ]; then binary=/web-server; fi
    size=$(ask '{{.Size}}')
    limit=${LARGEST:-$((8 << 20))}
    if [ "$name" = file-puller ]; then limit=${LARGEST:-$((11 << 20))}; fi
    expect "the size of at most $limit bytes" yes "$([ "$size" -le "$limit" ] && echo yes || echo "$size")"
    expect "the user" 65532:65532 "$(ask '{{.Config.User}}')"
    expect "the entrypoint" "$binary" "$(ask '{{index .Config.Entrypoint 0}}')"
    expect "the shell form" "" "$(ask '{{.Config.Cmd}}' | tr -d '[]')"
    expect "the title" "$name" "$(ask '{{index .Config.Labels "org.opencontainers.image.title"}}')"
    # In an image that holds nothing else, a binary that is not static does not even start.
    if [ "$name" != pause ]; then
        version=$("$engine" run --rm --read-only --network none --cap-drop ALL --entrypoint "$binary" "$image" --version)
        expect "what the binary calls itself" "${binary#/}" "${version%% *}"
    fi
    # The list of dependencies that scanners read: a section of its own, in the binary as it is in the image.
    container=$("$engine" create "$image")
    "$engine" cp "$container:$binary" - | grep -c --text '\.dep-v0' >/dev/null || expect "the list of dependencies" there missing
    "$engine" rm "$container" >/dev/null
    echo "$image: $size bytes"
done
exit "$failed"
