#!/usr/bin/env bash
# From nothing to http://localhost:9876/ on a kind cluster: deploy/kind/up.sh. Run it again after a change.
#
#   deploy/kind/up.sh              builds all images; a Deployment whose image did not change keeps its Pods
#   deploy/kind/up.sh --content    builds and replaces the content manager alone: the running Pod follows deploy/content
#
# CLUSTER=… names another cluster, POD_PORT=… another port, BUILD=images builds with deploy/images.sh in place of
# deploy/Dockerfile.
set -euo pipefail
cd "$(dirname "$0")/../.."

cluster=${CLUSTER:-sidecar-pod}
context=kind-$cluster
node=$cluster-control-plane
port=${POD_PORT:-9876}

fail() { echo "up.sh: $*" >&2; exit 69; }

images=(file-puller web-server log-agent content-manager)
case "${1-}" in
"") ;;
--content) images=(content-manager) ;;
*)
    echo "up.sh: unknown argument $1; usage: deploy/kind/up.sh [--content]" >&2
    exit 64
    ;;
esac
for program in docker kind kubectl curl; do
    command -v "$program" >/dev/null || fail "there is no $program here"
done

# The list is taken first: `grep -q` ends its pipe early, and kind, killed by that, would count as a failure.
clusters=$(kind get clusters 2>/dev/null)
if grep -qx -- "$cluster" <<<"$clusters"; then
    [ "$(docker inspect --format '{{.State.Running}}' "$node")" = true ] ||
        fail "the node $node is stopped; start it with: docker start $node"
    mapped=$(docker port "$node" 30976/tcp 2>/dev/null) ||
        fail "the cluster $cluster has no port mapping to the Pod; it was not made by up.sh. Choose another name with CLUSTER=…"
    mapped=${mapped%%$'\n'*}
    [ -z "${POD_PORT-}" ] || [ "${mapped##*:}" = "$port" ] ||
        fail "the cluster $cluster is mapped to port ${mapped##*:}, not to $port; a mapping is fixed when a cluster is made: deploy/kind/down.sh first"
    port=${mapped##*:}
    contexts=$(kubectl config get-contexts --output name)
    grep -qx -- "$context" <<<"$contexts" ||
        fail "the context $context is not in the kubeconfig; write it with: kind export kubeconfig --name $cluster"
else
    [ "${1-}" != --content ] || fail "there is no cluster $cluster yet; run deploy/kind/up.sh first"
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        fail "port $port of this machine is taken; choose another with POD_PORT=…"
    fi
    echo "up.sh: creating the cluster $cluster"
    sed "s/hostPort: 9876/hostPort: $port/" deploy/kind/cluster.yaml |
        kind create cluster --name "$cluster" --config - --wait 2m
fi

echo "up.sh: building ${images[*]}"
if [ "${BUILD:-Dockerfile}" = images ]; then
    deploy/images.sh
else
    for image in "${images[@]}"; do
        docker build --quiet --file deploy/Dockerfile --target "$image" --tag "$image:dev" .
    done
fi

# Each image also gets a tag that is made of its own digest. A node takes an image that it has by some name for the same image, so
# a changed one needs another name; and a Deployment whose image kept its name is left alone.
names=()
overrides=()
for image in "${images[@]}"; do
    id=$(docker image inspect --format '{{.Id}}' "$image:dev")
    tag=kind-$cluster-$(cut --characters 8-19 <<<"$id")
    docker tag "$image:dev" "$image:$tag"
    names+=("$image:$tag")
    overrides+=("- {name: $image, newTag: $tag}")
done
echo "up.sh: loading ${names[*]} into the cluster, also as :dev, which the labs and the scorecard use"
kind load docker-image --name "$cluster" "${names[@]}" "${images[@]/%/:dev}"

in_cluster() { kubectl --context "$context" --namespace sidecar-pod "$@"; }
if [ "${1-}" = --content ]; then
    in_cluster set image deployment/content-manager "content-manager=${names[0]}"
    in_cluster rollout status deployment/content-manager --timeout 3m
else
    echo "up.sh: applying overlays/kind to the context $context"
    rendered=$(mktemp -d)
    trap 'rm -rf "$rendered"' EXIT
    {
        echo "resources: [\"$(realpath --relative-to="$(realpath "$rendered")" deploy/kubernetes/overlays/kind)\"]"
        echo "images:"
        printf '%s\n' "${overrides[@]}"
    } >"$rendered/kustomization.yaml"
    kubectl --context "$context" apply --kustomize "$rendered"
    for deployment in content-manager sidecar-pod; do
        in_cluster rollout status "deployment/$deployment" --timeout 3m
    done
fi

# Images of earlier runs leave the node.
on_node=$(docker exec "$node" ctr --namespace k8s.io images list --quiet)
for image in "${images[@]}"; do
    current=$(printf '%s\n' "${names[@]}" | grep "^$image:")
    { grep -E "/$image:kind-$cluster-[0-9a-f]{12}\$" <<<"$on_node" || true; } | { grep -v "/$current\$" || true; } |
        xargs --no-run-if-empty docker exec "$node" ctr --namespace k8s.io images remove >/dev/null
done

for _ in {1..60}; do
    if info=$(curl --silent --fail --max-time 2 "http://localhost:$port/info"); then
        echo "up.sh: http://localhost:$port/ is up; /info answers $info"
        echo "up.sh: to drive a Pod through the scorecard: deploy/verify kubectl --context $context"
        exit 0
    fi
    sleep 0.5
done
fail "the Pod is ready, but http://localhost:$port/info does not answer; see: kubectl --context $context -n sidecar-pod get pods,services"
