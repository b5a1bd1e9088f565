#!/usr/bin/env bash
# From nothing to http://localhost:9876/ on a kind cluster: deploy/kind/up.sh. Run it again after a change.
#
# CLUSTER=… names another cluster, BUILD=images builds with deploy/images.sh in place of deploy/Dockerfile.
set -euo pipefail
cd "$(dirname "$0")/../.."

cluster=${CLUSTER:-sidecar-pod}
# Each run has a tag of its own: a node takes an image that it has by that name already for the same image.
tag=run-$(date -u +%Y%m%d%H%M%S)
images=(file-puller web-server log-agent content-manager)
for program in docker kind kubectl; do
    command -v "$program" >/dev/null || { echo "up.sh: there is no $program here" >&2; exit 69; }
done

if ! kind get clusters 2>/dev/null | grep -qx "$cluster"; then
    echo "up.sh: creating the cluster $cluster"
    kind create cluster --name "$cluster" --config deploy/kind/cluster.yaml --wait 2m
fi

echo "up.sh: building the images with the tag $tag"
if [ "${BUILD:-Dockerfile}" = images ]; then
    TAG=$tag deploy/images.sh
else
    for image in "${images[@]}"; do
        docker build --quiet --file deploy/Dockerfile --target "$image" --tag "$image:$tag" .
    done
fi

echo "up.sh: loading them into the cluster"
kind load docker-image --name "$cluster" "${images[@]/%/:$tag}"

echo "up.sh: applying overlays/kind"
rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
{
    echo "resources: [\"$(realpath --relative-to="$(realpath "$rendered")" deploy/kubernetes/overlays/kind)\"]"
    echo "images:"
    for image in "${images[@]}"; do echo "- {name: $image, newTag: $tag}"; done
} >"$rendered/kustomization.yaml"
kubectl --context "kind-$cluster" apply --kustomize "$rendered"
for deployment in content-manager sidecar-pod; do
    kubectl --context "kind-$cluster" --namespace sidecar-pod rollout status "deployment/$deployment" --timeout 3m
done

echo "up.sh: http://localhost:9876/ is up. To drive it through the scorecard: deploy/verify kubectl --tag $tag"
