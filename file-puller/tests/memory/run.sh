#!/usr/bin/env bash
# Holds file-puller to its memory limit: in a container of 64 MiB whose cgroup counts the kernel's part, with the flags that the
# manifests ship and content at the limits that they set. Needs Docker, nginx, git and Python. The image is that of
# deploy/test-image.sh. Each case publishes or is refused by name; it fails where the container is killed for memory, or what
# it uses passes the limit.
#
#   file-puller/tests/memory/run.sh [CASE...]      all cases, or those that are named
set -euo pipefail
cd "$(dirname "$0")/../../.."

if ! { command -v nginx || [ -x /usr/sbin/nginx ]; } >/dev/null || ! command -v git >/dev/null; then
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update --quiet=2
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install --quiet=2 --no-install-recommends --yes nginx-light git
fi

trap 'docker image rm --force file-puller:memory-test >/dev/null' EXIT
deploy/test-image.sh file-puller file-puller:memory-test
PATH=$PATH:/usr/sbin python3 file-puller/tests/memory/cases.py file-puller:memory-test "$@"
