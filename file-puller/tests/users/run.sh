#!/usr/bin/env bash
# usage: file-puller/tests/users/run.sh
# Runs file-puller as several users of one group on one volume, and on a disk that fills up. Needs root, or sudo. Fails, never skips.
set -euo pipefail
cd "$(dirname "$0")/../../.."

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
scenarios=$(.ci/test-binary.py file-puller scenarios)
cd file-puller
# The users have to reach the program that is tested, and the volume.
"${as_root[@]}" "$scenarios" --ignored users:: retention::
