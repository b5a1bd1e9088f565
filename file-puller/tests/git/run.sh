#!/usr/bin/env bash
# Follows real repositories, served by git's own `git http-backend` behind a small CGI server.
set -euo pipefail
cd "$(dirname "$0")/../../.."

if ! command -v git >/dev/null; then
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update --quiet=2
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install --quiet=2 --no-install-recommends --yes git
fi

# shellcheck source=file-puller/tests/program.sh
. file-puller/tests/program.sh
only=()
for name; do only+=(-k "$name"); done
exec python3 -m unittest --buffer "${only[@]}" file-puller/tests/git/test_git.py
