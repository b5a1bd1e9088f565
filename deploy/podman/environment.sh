# shellcheck shell=bash
# For scripts to source. Where no systemd runs (a container, a small VM, CI), podman's defaults for cgroups and events do
# not work: then it is given settings that do, unless the user has chosen others.
if [ ! -d /run/systemd/system ] && [ -z "${CONTAINERS_CONF-}" ]; then
    CONTAINERS_CONF=$PWD/deploy/podman/containers.conf
    export CONTAINERS_CONF
fi
