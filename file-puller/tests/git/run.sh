#!/usr/bin/env bash
# Follows real repositories, served by git's own `git http-backend` behind a small CGI server.
set -euo pipefail
cd "$(dirname "$0")/../../.."

# shellcheck source=.ci/install.sh
. .ci/install.sh
command -v git >/dev/null || install_packages git

# shellcheck source=file-puller/tests/program.sh
. file-puller/tests/program.sh
only=()
for name; do only+=(-k "$name"); done
exec python3 -m unittest --buffer "${only[@]}" file-puller/tests/git/test_git.py
