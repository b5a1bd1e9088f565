#!/usr/bin/env bash
# usage: file-puller/tests/nginx/run.sh
# Runs file-puller against the real nginx, which it installs from Debian where it is missing. Fails, never skips.
set -euo pipefail
cd "$(dirname "$0")/../../.."

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
# shellcheck source=.ci/install.sh
. .ci/install.sh
if ! command -v nginx >/dev/null && [ ! -x /usr/sbin/nginx ]; then
    # The tests start it themselves: no service, and nothing on port 80.
    install_packages nginx-light || install_packages nginx
fi

scenarios=$(.ci/test-binary.py file-puller scenarios)
# One of the tests changes where a name leads: in a mount namespace, over a copy of /etc/hosts.
hosts=$(mktemp)
trap 'rm -f "$hosts"' EXIT
cp /etc/hosts "$hosts"
# The script is for the inner shell.
# shellcheck disable=SC2016
"${as_root[@]}" env PATH="$PATH:/usr/sbin" HOME="$HOME" OWN_HOSTS="$hosts" SCENARIOS="$scenarios" unshare --mount bash -euc '
    mount --bind "$OWN_HOSTS" /etc/hosts
    cd file-puller
    "$SCENARIOS" --ignored nginx::'
