#!/usr/bin/env bash
# Every system call of a sync fails once, with EIO and with ENOSPC, and every one that changes the volume is once the last. Needs strace.
#
#   file-puller/tests/strace/run.sh [SOURCE...]      manifest, archive, git, or all of them
set -euo pipefail
cd "$(dirname "$0")/../../.."

if ! command -v strace >/dev/null || ! command -v git >/dev/null; then
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update --quiet=2
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install --quiet=2 --no-install-recommends --yes strace git
fi

# shellcheck source=file-puller/tests/program.sh
. file-puller/tests/program.sh
exec python3 file-puller/tests/strace/faults.py "$@"
