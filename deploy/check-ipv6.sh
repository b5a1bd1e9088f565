#!/usr/bin/env bash
# The Pod becomes ready where there is no IPv4, as in an IPv6-only cluster, and so does the demo: deploy/check-ipv6.sh
#
# First the other way round: where the node's default is that an IPv6 socket takes no IPv4 (net.ipv6.bindv6only), all addresses of
# both families are listened on nevertheless, and an IPv4 client has its own address in /info and in the log.
#
# In a network namespace of its own, whose only address is ::1 (that takes root). BINARIES names the folder of the binaries.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1-}" != --inside ]; then
    if [ -z "${BINARIES-}" ]; then
        cargo build --quiet --package kubelet --package file-puller --package web-server --package log-agent
        BINARIES=$(realpath "${CARGO_TARGET_DIR:-target}")/debug
    fi
    export BINARIES
    exec unshare --net "$0" --inside
fi

ip link set lo up
pod=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null; wait; rm -rf "$pod"' EXIT
mkdir "$pod"/{content,logs,state}
start() {
    local name=$1
    shift
    "$BINARIES/$name" "$@" >"$pod/$name.out" 2>>"$pod/log" &
    pids+=($!)
}
# Waits up to 30 s.
until_true() { for _ in {1..300}; do "$@" && return; sleep 0.1; done; return 1; }

echo 1 >/proc/sys/net/ipv6/bindv6only
start web-server --root deploy/content --access-log "$pod/ipv4.log"
until_true "$BINARIES/web-server" healthcheck 2>/dev/null || { cat "$pod/log" >&2; echo "check-ipv6.sh: web-server is not ready" >&2; exit 1; }
info=$(curl --silent 'http://127.0.0.1:9876/info') || true
expected='{"host": "127.0.0.1:9876", "version": "0.5.0", "from": "127.0.0.1"}'
[ "$info" = "$expected" ] || { echo "check-ipv6.sh: over IPv4 /info answers '$info', not $expected" >&2; exit 1; }
until_true grep -q '"client.address":"127.0.0.1"' "$pod/ipv4.log" || { cat "$pod/ipv4.log" >&2; echo "check-ipv6.sh: the log does not have 127.0.0.1" >&2; exit 1; }
curl --silent --fail --output /dev/null 'http://127.0.0.1:9877/livez' || { echo "check-ipv6.sh: the admin port takes no IPv4" >&2; exit 1; }
kill "${pids[@]}"
wait
pids=()

ip -4 address flush dev lo
! ip -4 address show | grep -q 'inet ' || { echo "check-ipv6.sh: there still is an IPv4 address" >&2; exit 1; }
# Every address is the default one, but for the content manager's, which is a second web-server.
start web-server --manifest --root deploy/content --listen '[::]:9880' --admin-addr '[::]:9881'
start log-agent --include "$pod/logs/access.log*" --state-dir "$pod/state" --sink stdout:
start file-puller --source 'http://[::1]:9880/manifest.json' --volume "$pod/content"
start web-server --root "$pod/content/current" --access-log "$pod/logs/access.log"
start kubelet --ip ::1 --port 9886 --binaries "$BINARIES"

ready() { for name in file-puller web-server log-agent; do "$BINARIES/$name" healthcheck 2>/dev/null || return 1; done; }
until_true ready || { cat "$pod/log" >&2; echo "check-ipv6.sh: the Pod is not ready without IPv4" >&2; exit 1; }
info=$(curl --silent --fail 'http://[::1]:9876/info')
expected='{"host": "[::1]:9876", "version": "0.5.0", "from": "::1"}'
[ "$info" = "$expected" ] || { echo "check-ipv6.sh: /info answers $info, not $expected" >&2; exit 1; }
until_true grep -qF 'the Pod is up: http://[::1]:9886/' "$pod/kubelet.out" || true
info=$(curl --silent --fail 'http://[::1]:9886/info') || true
[ "$info" = "${expected/9876/9886}" ] || { cat "$pod/kubelet.out" >&2; echo "check-ipv6.sh: the demo's /info answers $info" >&2; exit 1; }
until_true grep -q '"client.address":"::1"' "$pod/log-agent.out" || {
    cat "$pod/log" "$pod/log-agent.out" >&2
    echo "check-ipv6.sh: the record of the request is not at the sink" >&2
    exit 1
}
echo "check-ipv6.sh: the Pod is ready without IPv4, answers $info, and ships the record of that"
