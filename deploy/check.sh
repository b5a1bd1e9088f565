#!/usr/bin/env bash
# Every check of deploy/ that needs no container to run: deploy/check.sh
#
# Installs its tools (requirements.txt) into the target folder. Fails, never skips.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '== %s\n' "$*"; }

build=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}")
tools=$build/deploy-tools
# shellcheck source=.ci/install.sh
. .ci/install.sh
install_requirements deploy/requirements.txt "$tools"
PATH=$tools/bin:$PATH

step "shell scripts: shellcheck"
shellcheck --external-sources deploy/*.sh deploy/*/*.sh deploy/verify .ci/run .ci/*.sh ./*/tests/*/run.sh

step "Dockerfile: hadolint"
hadolint --failure-threshold style deploy/Dockerfile

step "YAML: yamllint"
yamllint --strict --config-file deploy/yamllint.yaml deploy .github

step "workflows: schema and zizmor"
check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
zizmor --offline --quiet .github/workflows

step "Compose: config, by every Compose that is here"
composes=0
for compose in "docker compose" "docker-compose"; do
    # The words of a command are meant to be split.
    # shellcheck disable=SC2086
    if $compose version >/dev/null 2>&1; then
        $compose --file deploy/compose.yaml config --quiet
        $compose --file deploy/compose.yaml --env-file deploy/collector.env config --quiet
        for pattern in deploy/patterns/*.compose.yaml; do $compose --file "$pattern" config --quiet; done
        # docker-compose 1.29 refuses what compose.v2.yaml is for.
        if [ "$compose" = "docker compose" ]; then
            $compose --file deploy/compose.yaml --file deploy/compose.v2.yaml config --quiet
        fi
        composes=$((composes + 1))
        echo "$compose: ok"
    fi
done
[ "$composes" -gt 0 ] || { echo "check.sh: there is neither \`docker compose\` nor \`docker-compose\` here" >&2; exit 69; }

step "Kubernetes: render, schemas from 1.29 to the newest, policy"
rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
cp deploy/kubernetes/twocontainers.yaml deploy/patterns/{adapter,ambassador}.yaml "$rendered/"
for kustomization in deploy/kubernetes/*/kustomization.yaml deploy/kubernetes/overlays/*/kustomization.yaml; do
    folder=$(dirname "$kustomization")
    kubectl kustomize "$folder" >"$rendered/$(basename "$folder").yaml"
done
for version in 1.{29..37}; do
    kubernetes-validate --strict --quiet --kubernetes-version "$version" "$rendered"/*.yaml
    echo "Kubernetes $version: ok"
done

step "Kubernetes and Dockerfile: checkov"
checkov --config-file deploy/checkov.yaml --directory "$rendered" --framework kubernetes
checkov --config-file deploy/checkov.yaml --file deploy/Dockerfile --framework dockerfile

step "kind: up.sh and down.sh, with stand-ins for the programs that they call"
deploy/kind/check.sh

step "policy"
python deploy/policy.py --self-test "$rendered"/*.yaml
