#!/usr/bin/env bash
# Holds web-server to its memory limit: in a container of 64 MiB whose cgroup counts the kernel's part, against clients that
# would like more. Needs Docker and Python. The image is that of deploy/test-image.sh.
# A case fails where the container is killed, its memory passes the limit, or another client is not answered within 0.6 s; the
# 100 ms that are aimed at are printed.
#
#   web-server/tests/memory/run.sh [CASE...]      all cases, or those that are named
set -euo pipefail
cd "$(dirname "$0")/../../.."

deploy/test-image.sh web-server web-server:memory-test
exec python3 web-server/tests/memory/cases.py web-server:memory-test "$@"
