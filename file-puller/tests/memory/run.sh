#!/usr/bin/env bash
# Holds file-puller to its memory limit: in a container of 64 MiB whose cgroup counts the kernel's part, with the flags that the
# manifests ship and content at the limits that they set. Each case publishes or is refused by name; it fails where the container is
# killed for memory, or what it uses passes the limit. Needs Docker, nginx, git, Python, and root, to mount a file as a disk. The image
# is that of deploy/test-image.sh.
#
#   file-puller/tests/memory/run.sh [CASE...]      all cases, or those that are named
#   FS=xfs file-puller/tests/memory/run.sh         on a disk of xfs, or btrfs, whose tools have to be there
set -euo pipefail
cd "$(dirname "$0")/../../.."

# shellcheck source=.ci/install.sh
. .ci/install.sh
PATH=$PATH:/usr/sbin:/sbin
{ command -v nginx && command -v git && command -v mkfs.ext4; } >/dev/null || install_packages nginx-light git e2fsprogs

trap 'docker image rm --force file-puller:memory-test >/dev/null' EXIT
deploy/test-image.sh file-puller file-puller:memory-test
python3 file-puller/tests/memory/cases.py file-puller:memory-test "$@"
