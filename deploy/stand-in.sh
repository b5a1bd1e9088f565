#!/usr/bin/env bash
# Makes an image out of what this host has, in the part of one that cannot be pulled here. For tests, and never under the
# name of the image that it stands in for.
#
#   deploy/stand-in.sh shell [podman]   shell:stand-in, with bash, curl, sleep, readlink and tail: the lesson's `shell` container
#   deploy/stand-in.sh haproxy [podman], nginx [podman], nginx-exporter [podman]
#                                       haproxy:stand-in and so on, the programs of labs 11 and 12, from Debian's packages haproxy,
#                                       nginx-light and prometheus-nginx-exporter
#   deploy/stand-in.sh rust             rust:stand-in, a Debian with a C compiler and this host's Rust: what deploy/Dockerfile
#                                       builds on, with the crates that this host has fetched already
set -euo pipefail

what=${1-}
engine=${2:-docker}
command -v "$engine" >/dev/null || { echo "stand-in.sh: there is no $engine here" >&2; exit 69; }
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# A program with the libraries that it is linked with, at the paths that they have here.
take() {
    local path
    path=$(command -v "$1") || { echo "stand-in.sh: there is no $1 here; install it first" >&2; exit 69; }
    path=$(readlink -f "$path")
    { echo "$path"; ldd "$path" | grep -o '/[^ ]*'; } | xargs cp --parents --dereference --target-directory "$root"
}

# The folders that programs and libraries go into, where Debian has them.
folders() {
    mkdir -p "$root"/usr/{bin,sbin,lib,lib64}
    ln -s usr/bin usr/sbin usr/lib usr/lib64 "$root"
}

import() {
    tar --create --directory "$root" --owner=0 --group=0 . | "$engine" import "$@"
}

case $what in
shell)
    folders
    for program in bash curl sleep readlink tail; do take "$program"; done
    import --change 'ENV PATH=/usr/bin' - shell:stand-in
    ;;
haproxy | nginx | nginx-exporter)
    program=${what/#nginx-exporter/prometheus-nginx-exporter}
    folders
    take "$program"
    import --change 'ENV PATH=/usr/sbin:/usr/bin' --change "ENTRYPOINT [\"$program\"]" --change 'USER 65532:65532' - "$what:stand-in"
    ;;
rust)
    command -v debootstrap >/dev/null || { echo "stand-in.sh: this needs debootstrap" >&2; exit 69; }
    # The mirror that apt uses here, if any.
    # shellcheck disable=SC2016
    mirror=$(apt-get indextargets --format '$(SITE)' 2>/dev/null | grep -m1 '/debian/*$' || true)
    debootstrap --variant=minbase --include=gcc,libc6-dev bookworm "$root" ${mirror:+"$mirror"} >/dev/null
    cargo_home=${CARGO_HOME:-$HOME/.cargo}
    mkdir -p "$root/usr/local/cargo/bin" "$root/usr/local/rust"
    cp -r "$(rustc --print sysroot)"/{bin,lib} "$root/usr/local/rust/"
    cp -r "$cargo_home/registry" "$root/usr/local/cargo/registry"
    cp "$(command -v cargo-auditable)" "$root/usr/local/cargo/bin/"
    # Whether the Dockerfile builds does not depend on how well the compiler optimises, but how long it takes does.
    import --change 'ENV PATH=/usr/local/cargo/bin:/usr/local/rust/bin:/usr/local/bin:/usr/bin:/bin' \
        --change 'ENV CARGO_HOME=/usr/local/cargo' --change 'ENV CARGO_NET_OFFLINE=true' \
        --change 'ENV CARGO_PROFILE_RELEASE_LTO=off' --change 'ENV CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16' \
        --change 'ENV CARGO_PROFILE_RELEASE_OPT_LEVEL=0' - rust:stand-in
    ;;
*)
    echo "usage: $0 shell | haproxy | nginx | nginx-exporter | rust [docker | podman]" >&2
    exit 64
    ;;
esac
