#!/usr/bin/env bash
# Follows images in a real registry (Debian's docker-registry), which skopeo fills.
set -euo pipefail
cd "$(dirname "$0")/../../.."

# shellcheck source=.ci/install.sh
. .ci/install.sh
packages=()
command -v docker-registry >/dev/null || packages+=(docker-registry)
for tool in skopeo umoci; do command -v "$tool" >/dev/null || packages+=("$tool"); done
install_packages "${packages[@]}"

# shellcheck source=file-puller/tests/program.sh
. file-puller/tests/program.sh
only=()
for name; do only+=(-k "$name"); done
exec python3 -m unittest --buffer "${only[@]}" file-puller/tests/oci/test_oci.py
