#!/usr/bin/env bash
# Follows images in a real registry (Debian's docker-registry), which skopeo fills.
set -euo pipefail
cd "$(dirname "$0")/../../.."

packages=()
command -v docker-registry >/dev/null || packages+=(docker-registry)
command -v skopeo >/dev/null || packages+=(skopeo)
if [ ${#packages[@]} -gt 0 ]; then
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update --quiet=2
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install --quiet=2 --no-install-recommends --yes "${packages[@]}"
fi

# shellcheck source=file-puller/tests/program.sh
. file-puller/tests/program.sh
only=()
for name; do only+=(-k "$name"); done
exec python3 -m unittest --buffer "${only[@]}" file-puller/tests/oci/test_oci.py
