#!/usr/bin/env bash
# usage: web-server/tests/nginx/run.sh
# An upload of 20 MB with `Expect: 100-continue`, through the real nginx as a proxy (`client_max_body_size 0`): web-server answers
# 405 before it has read the body, and the client has to get that, not nginx's 502. With and without nginx's buffering of requests.
set -euo pipefail
cd "$(dirname "$0")/../../.."

for program in nginx curl; do
    PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || { echo "$program is missing" >&2; exit 1; }
done
if [ -z "${BINARIES-}" ]; then
    cargo build --quiet --locked --package web-server
    BINARIES=${CARGO_TARGET_DIR:-target}/debug
fi
dir=$(mktemp --directory)
server='' proxy=''
cleanup() {
    for pid in $server $proxy; do kill "$pid" 2>/dev/null || true; done
    # They remove files of their own when they end.
    wait
    rm -r "$dir"
}
trap cleanup EXIT
mkdir "$dir/site"
echo hello >"$dir/site/index.html"
chmod 755 "$dir" "$dir/site"
head --bytes 20000000 /dev/zero >"$dir/upload"

"$BINARIES/web-server" --root "$dir/site" --listen 127.0.0.1:0 --admin-addr 127.0.0.1:0 --log-format text --termination-log /dev/null 2>"$dir/log" &
server=$!
for _ in $(seq 100); do
    addr=$(sed -n 's/.*listener="content".*addr=\([0-9.:]*\).*/\1/p' "$dir/log")
    [ -z "$addr" ] || break
    sleep 0.1
done
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$dir/nginx.conf" <<EOF
daemon off; pid $dir/pid; error_log $dir/error.log;
events {}
http {
  access_log off; client_body_temp_path $dir/body; proxy_temp_path $dir/proxy; fastcgi_temp_path $dir/fcgi;
  uwsgi_temp_path $dir/uwsgi; scgi_temp_path $dir/scgi;
  server {
    listen 127.0.0.1:$port; client_max_body_size 0; proxy_http_version 1.1;
    location / { proxy_pass http://$addr; }
    location /unbuffered/ { proxy_pass http://$addr; proxy_request_buffering off; }
  }
}
EOF
PATH=$PATH:/usr/sbin nginx -c "$dir/nginx.conf" -e "$dir/error.log" &
proxy=$!
for _ in $(seq 100); do
    ! curl --silent --fail --output /dev/null "http://127.0.0.1:$port/" || break
    sleep 0.1
done
for target in "127.0.0.1:$port/upload" "127.0.0.1:$port/unbuffered/upload" "$addr/upload"; do
    for method in PUT POST; do
        for _ in 1 2 3 4 5; do
            status=$(curl --silent --show-error --output /dev/null --write-out '%{http_code}' --request "$method" --header 'Expect: 100-continue' \
                --upload-file "$dir/upload" "http://$target")
            [ "$status" = 405 ] || { echo "$method http://$target: $status instead of 405" >&2; cat "$dir/error.log" >&2; exit 1; }
        done
        echo "$method http://$target: 405, five times"
    done
done
