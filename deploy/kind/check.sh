#!/usr/bin/env bash
# Holds up.sh and down.sh to what they promise, with stand-ins for kind, docker and kubectl that write down how they are called.
set -euo pipefail
cd "$(dirname "$0")/../.."

fake=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$fake"' EXIT
mkdir "$fake/bin"
calls=$fake/calls

cat >"$fake/bin/kind" <<'EOF'
#!/bin/sh
echo "kind $*" >>"$CALLS"
case "$1 $2" in
"get clusters") printf '%s\n' ${CLUSTERS-} ;;
"create cluster") cat >>"$CALLS" ;;
esac
EOF
cat >"$fake/bin/docker" <<'EOF'
#!/bin/sh
echo "docker $*" >>"$CALLS"
case "$1" in
inspect) echo "${RUNNING-true}" ;;
port) [ -n "${MAPPED-}" ] && echo "127.0.0.1:$MAPPED" ;;
image) echo "sha256:0123456789abcdef0123456789abcdef" ;;
images) printf '%s\n' web-server:dev web-server:kind-mine-0123456789ab web-server:kind-other-0123456789ab ;;
exec) case "$*" in *"images list"*) printf '%s\n' docker.io/library/web-server:kind-mine-0123456789ab docker.io/library/web-server:kind-mine-00000000aaaa ;; esac ;;
esac
EOF
cat >"$fake/bin/kubectl" <<'EOF'
#!/bin/sh
echo "kubectl $*" >>"$CALLS"
case "$*" in "config get-contexts"*) echo "${CONTEXT-kind-mine}" ;; esac
EOF
chmod +x "$fake/bin/"*
export PATH=$fake/bin:$PATH CALLS=$calls CLUSTER=mine CLUSTERS=mine

# says STATUS PATTERN VARIABLES… -- COMMAND: one line on stderr that matches, and nothing was built.
says() {
    local status=$1 pattern=$2 line got=0
    shift 2
    : >"$calls"
    line=$(env "$@" 2>&1 >/dev/null) || got=$?
    if [ "$got" -ne "$status" ] || [ "$(wc --lines <<<"$line")" -ne 1 ] || ! grep -qE -- "$pattern" <<<"$line"; then
        echo "check.sh: expected status $status and one line like '$pattern', got $got: $line" >&2
        exit 1
    fi
    if grep -qE '^docker build|^kind create' "$calls"; then
        echo "check.sh: something was built or created before '$pattern' was found out" >&2
        exit 1
    fi
}

port=$(python3 - "$fake" <<'EOF'
import http.server, os, sys
class Info(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"host": "localhost"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Info)
child = os.fork()
if child:
    with open(os.path.join(sys.argv[1], "server"), "w") as file:
        file.write(str(child))
    print(server.server_port)
else:
    os.close(1)
    server.serve_forever()
EOF
)
server=$(cat "$fake/server")

says 64 'unknown argument --cluster' deploy/kind/up.sh --cluster
says 69 'node mine-control-plane is stopped; start it with: docker start' RUNNING=false deploy/kind/up.sh
says 69 'has no port mapping' deploy/kind/up.sh
says 69 'mapped to port 9000, not to 9001' MAPPED=9000 POD_PORT=9001 deploy/kind/up.sh
says 69 'kind export kubeconfig --name mine' MAPPED=9000 CONTEXT=kind-mine-too deploy/kind/up.sh
says 69 "port $port of this machine is taken" CLUSTERS=other POD_PORT="$port" deploy/kind/up.sh
says 69 'there is no cluster mine yet' CLUSTERS=other deploy/kind/up.sh --content

: >"$calls"
said=$(MAPPED=$port deploy/kind/up.sh)
grep -qF "http://localhost:$port/ is up; /info answers {\"host\": \"localhost\"}" <<<"$said"
grep -qF "deploy/verify kubectl --context kind-mine" <<<"$said"
grep -qE '^kind load .* web-server:kind-mine-0123456789ab .* web-server:dev' "$calls"
grep -qE '^docker exec mine-control-plane ctr .* remove docker.io/library/web-server:kind-mine-00000000aaaa$' "$calls"
if grep '^kubectl' "$calls" | grep -v 'config get-contexts' | grep -v -- '--context kind-mine'; then
    echo "check.sh: up.sh asks a cluster that it does not name" >&2
    exit 1
fi

: >"$calls"
MAPPED=$port deploy/kind/up.sh --content >/dev/null
grep -qE 'set image deployment/content-manager content-manager=content-manager:kind-mine-0123456789ab' "$calls"
if grep -qE 'apply|target web-server' "$calls"; then
    echo "check.sh: up.sh --content touches more than the content manager" >&2
    exit 1
fi

: >"$calls"
deploy/kind/down.sh >/dev/null
grep -qxF 'docker rmi web-server:kind-mine-0123456789ab' "$calls"
echo "kind: up.sh and down.sh keep their promises"
