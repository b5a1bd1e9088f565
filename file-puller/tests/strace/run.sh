#!/usr/bin/env bash
# Every system call of a sync fails once with EIO, and with ENOSPC where a disk can be full, and every one that changes the volume is
# once the last. Needs strace.
#
#   file-puller/tests/strace/run.sh [SOURCE...]      manifest, archive, git, oci, or all of them
set -euo pipefail
cd "$(dirname "$0")/../../.."

# shellcheck source=.ci/install.sh
. .ci/install.sh
{ command -v strace && command -v git; } >/dev/null || install_packages strace git

# shellcheck source=file-puller/tests/program.sh
. file-puller/tests/program.sh
exec python3 file-puller/tests/strace/faults.py "$@"
