#!/usr/bin/env bash
# No archive publishes other bytes than GNU tar extracts: file-puller beside `tar -x`, over archives of every format.
#
#   run.sh [ARCHIVES [SEED]]    so many damaged archives (400), from this seed on
set -euo pipefail
cd "$(dirname "$0")/../../.."

tar --version | grep -q 'GNU tar' || { echo "$0: needs GNU tar as 'tar'" >&2; exit 1; }
# shellcheck source=.ci/install.sh
. .ci/install.sh
command -v zstd >/dev/null || install_packages zstd

# shellcheck source=file-puller/tests/program.sh
. file-puller/tests/program.sh
exec python3 file-puller/tests/tar/differential.py "$@"
