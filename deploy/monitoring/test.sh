#!/usr/bin/env bash
# Monitoring, held to the real Prometheus: deploy/monitoring/test.sh. BINARIES names the folder of the three binaries.
set -euo pipefail
cd "$(dirname "$0")/../.."

# shellcheck source=.ci/install.sh
. .ci/install.sh
command -v promtool >/dev/null || install_packages prometheus
build=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}")
if [ -z "${BINARIES-}" ]; then
    cargo build --quiet --package file-puller --package web-server --package log-agent
    BINARIES=$build/debug
fi
tools=$build/monitoring-tools
if ! [ -x "$tools/bin/python" ]; then
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check "$(grep '^PyYAML' deploy/requirements.txt)"
fi

overlay=deploy/kubernetes/overlays/monitoring
checked=$(mktemp -d)
trap 'rm -rf "$checked"' EXIT
cp "$overlay/alerts.yaml" deploy/monitoring/prometheus.yaml "$checked/"
# Not the overlay's own prometheus.yaml: Debian's Prometheus is built without the discovery of Pods.
promtool check config "$checked/prometheus.yaml"
"$tools/bin/python" - <<'EOF'
import sys, yaml
rules = yaml.safe_load(open("deploy/kubernetes/overlays/monitoring/alerts.yaml"))
operator = yaml.safe_load(open("deploy/kubernetes/components/prometheus-operator/prometheus-rule.yaml"))
sys.exit(rules != operator["spec"] and "test.sh: prometheus-rule.yaml and alerts.yaml differ")
EOF
"$tools/bin/python" deploy/monitoring/test.py "$BINARIES"
