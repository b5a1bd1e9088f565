#!/usr/bin/env bash
# Makes the images from binaries that are built on this host: the same images as the Dockerfile's, without its base image.
#
#   deploy/images.sh             builds the binaries, then the images NAME:dev with docker
#   deploy/images.sh podman      the same with podman
#
# TAG=… gives them another tag. What is built in earlier runs is used again.
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=deploy/podman/environment.sh
. deploy/podman/environment.sh

engine=${1:-docker}
tag=${TAG:-dev}
images=(file-puller web-server log-agent content-manager pause)
command -v "$engine" >/dev/null || { echo "images.sh: there is no $engine here" >&2; exit 69; }

echo "images.sh: building the binaries"
deploy/build.sh tools
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
deploy/build.sh binaries "$context/out"

# The Dockerfile without its build stage: what that stage would have made is in the context.
mkdir "$context/deploy"
cp -r deploy/content "$context/deploy/content"
sed -e '1,/^# === Images/d' -e 's/--from=build //' deploy/Dockerfile >"$context/Dockerfile"
# podman keeps every step as an image of its own unless told not to, and the OCI format has no HEALTHCHECK.
options=()
if [ "$engine" = podman ]; then options+=(--layers=false --format docker); fi
revision=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
for image in "${images[@]}"; do
    echo "images.sh: $image:$tag"
    "$engine" build --quiet "${options[@]}" --file "$context/Dockerfile" --target "$image" --tag "$image:$tag" \
        --build-arg "VERSION=$tag" --build-arg "REVISION=$revision" "$context"
done
TAG=$tag deploy/check-images.sh "$engine"
