#!/usr/bin/env bash
# Sourced by scripts: installs what they need, where it is missing.

# Debian's packages: needs root, or sudo.
install_packages() {
    [ $# -gt 0 ] || return 0
    local as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    echo "== installing $*"
    "${as_root[@]}" apt-get update --quiet=2
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install --quiet=2 --no-install-recommends --yes "$@"
}

# Python's, of a file of requirements, into a folder: again where the file has changed.
install_requirements() {
    local requirements=$1 tools=$2
    ! cmp --silent "$requirements" "$tools/requirements.txt" || return 0
    echo "== installing the tools"
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
    cp "$requirements" "$tools/requirements.txt"
}
