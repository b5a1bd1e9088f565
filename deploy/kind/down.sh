#!/usr/bin/env bash
# Takes the cluster of up.sh away, with everything in it, and the images that were made for this cluster alone.
set -euo pipefail

cluster=${CLUSTER:-sidecar-pod}
for program in docker kind; do
    command -v "$program" >/dev/null || { echo "down.sh: there is no $program here" >&2; exit 69; }
done
echo "down.sh: deleting the cluster $cluster"
kind delete cluster --name "$cluster"
images=$(docker images --format '{{.Repository}}:{{.Tag}}')
{ grep -E "^(file-puller|web-server|log-agent|content-manager):kind-$cluster-[0-9a-f]{12}\$" <<<"$images" || true; } |
    xargs --no-run-if-empty docker rmi
