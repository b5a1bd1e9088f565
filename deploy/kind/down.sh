#!/usr/bin/env bash
# Takes the cluster of up.sh away, with everything in it, and the images that were made for it.
set -euo pipefail

cluster=${CLUSTER:-sidecar-pod}
command -v kind >/dev/null || { echo "down.sh: there is no kind here" >&2; exit 69; }
echo "down.sh: deleting the cluster $cluster"
kind delete cluster --name "$cluster"
docker images --format '{{.Repository}}:{{.Tag}}' |
    { grep -E '^(file-puller|web-server|log-agent|content-manager|pause):run-[0-9]+$' || true; } |
    xargs --no-run-if-empty docker rmi
