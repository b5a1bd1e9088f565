#!/usr/bin/env bash
# usage: file-puller/tests/users/run.sh
# Runs file-puller as several users of one group on one volume. Needs root, or sudo. Fails, never skips.
set -euo pipefail
cd "$(dirname "$0")/../../.."

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
cargo test --locked --package file-puller --test scenarios --no-run
# The users have to reach the program that is tested, and the volume.
"${as_root[@]}" env PATH="$PATH" HOME="$HOME" cargo test --locked --package file-puller --test scenarios -- --ignored volume::users_
