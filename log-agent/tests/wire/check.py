"""Runs log-agent against receivers built on `opentelemetry-proto` and `msgpack`, and compares field by field."""

import gzip
import hashlib
import http.server
import json
import pathlib
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading

import msgpack
import zstandard
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

AGENT = sys.argv[1]
KEY = "a key"
OBJECT = {
    "timestamp": "2026-11-23T18:02:03.123456Z",
    "url.path": 'a "path" \u00e9 \U0001f600\n',
    "http.response.status_code": 503,
    "duration": 0.000113,
    "negative": -70000,
    "ok": True,
    "none": None,
    "list": [1, "two", [3.5, {}], {"k": "v"}],
    "map": {"a": {"b": [False]}},
    "long": "x" * 70_000,
    "empty": "",
}
NANOS = 1795456923_123456000
LINES = [json.dumps(OBJECT).encode(), json.dumps(OBJECT, ensure_ascii=False).encode(), b"plain text", b"caf\xe9", b'{"level":"warn"}', b"{broken"]


def unpack(encoding, body):
    return {"gzip": gzip.decompress, "zstd": lambda body: zstandard.ZstdDecompressor().stream_reader(body).read()}.get(encoding, bytes)(body)


def value(any_value):
    """An AnyValue as Python has it."""
    kind = any_value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [value(element) for element in any_value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: value(pair.value) for pair in any_value.kvlist_value.values}
    return getattr(any_value, kind)


class Otlp(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    got = []

    def do_POST(self):
        body = unpack(self.headers["content-encoding"], self.rfile.read(int(self.headers["content-length"])))
        assert self.path == "/v1/logs" and self.headers["content-type"] == "application/x-protobuf"
        request = ExportLogsServiceRequest.FromString(body)
        # Nothing in it that the schema does not know, and written as the reference implementation writes it but for order.
        assert ExportLogsServiceRequest.FromString(request.SerializeToString()) == request
        assert request.ByteSize() == len(body), (request.ByteSize(), len(body))
        for logs in request.resource_logs:
            resource = {pair.key: value(pair.value) for pair in logs.resource.attributes}
            for scope in logs.scope_logs:
                for record in scope.log_records:
                    attributes = {pair.key: value(pair.value) for pair in record.attributes}
                    self.got.append(
                        {
                            "time": record.time_unix_nano or None, "observed": record.observed_time_unix_nano,
                            "severity": record.severity_number or None, "resource": resource,
                            "body": value(record.body), "id": attributes.pop("log.record.uid"), "path": attributes.pop("log.file.path"),
                            "error": attributes.pop("parse_error", None), "attributes": attributes,
                        }
                    )
        answer = ExportLogsServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Forward(socketserver.BaseRequestHandler):
    """Forward protocol v1, the receiver's side, with the handshake."""

    got = []

    def handle(self):
        nonce = b"0123456789abcdef"
        self.request.sendall(msgpack.packb(["HELO", {"nonce": nonce, "auth": b"", "keepalive": True}]))
        unpacker, authenticated = msgpack.Unpacker(strict_map_key=False), False
        while data := self.request.recv(1 << 16):
            unpacker.feed(data)
            for message in unpacker:
                if not authenticated:
                    kind, hostname, salt, digest, _, _ = message
                    ours = lambda name: hashlib.sha512((salt + name).encode() + nonce + KEY.encode()).hexdigest()
                    authenticated = kind == "PING" and digest == ours(hostname)
                    self.request.sendall(msgpack.packb(["PONG", authenticated, "", "server", ours("server")]))
                    continue
                tag, entries, options = message
                assert tag == "web" and isinstance(entries, bytes)
                self.take(list(msgpack.Unpacker(self.plain(entries, options))), options)
                self.request.sendall(msgpack.packb({"ack": options["chunk"]}))

    def plain(self, entries, options):
        import io

        return io.BytesIO(unpack(options.get("compressed"), entries))

    def take(self, entries, options):
        assert len(entries) == options["size"]
        for time, record in entries:
            assert time.code == 0
            seconds, nanos = struct.unpack(">II", time.data)
            self.got.append(
                {
                    "time": seconds * 10**9 + nanos if "timestamp" in record else None, "observed": seconds,
                    "severity": record.get("severity_number"), "resource": record["resource"], "body": record.get("body"),
                    "id": record["id"], "path": record["log.file.path"], "error": record.get("parse_error"),
                    "attributes": record.get("attributes", {}),
                }
            )


def check(name, got, path):
    assert len(got) == len(LINES), f"{name}: {len(got)} records"
    offset = 0
    for record, line in zip(got, LINES):
        assert record["id"].endswith(f":{offset}") and record["path"] == str(path), record["id"]
        assert record["resource"] == {"service.name": "web"} and record["observed"] > 0
        offset += len(line) + 1
    for record in got[:2]:
        assert record["attributes"] == OBJECT, {key: record["attributes"].get(key) for key in OBJECT if record["attributes"].get(key) != OBJECT[key]}
        assert [type(record["attributes"][key]) for key in OBJECT] == [type(each) for each in OBJECT.values()]
        assert (record["time"], record["severity"], record["body"]) == (NANOS, 17, None), record["time"]
    assert [record["body"] for record in got[2:]] == ["plain text", b"caf\xe9", None, "{broken"]
    assert got[4]["severity"] == 13 and got[5]["error"] == "not_json_object"
    print(f"{name}: {len(got)} records, field by field")


def main():
    for server_class, handler, sink, compressions in [
        (http.server.ThreadingHTTPServer, Otlp, "otlp+http://127.0.0.1:{}", ["none", "gzip", "zstd"]),
        (socketserver.ThreadingTCPServer, Forward, "forward://127.0.0.1:{}/web", ["none", "gzip"]),
    ]:
        with server_class(("127.0.0.1", 0), handler) as server:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            for compression in compressions:
                handler.got.clear()
                with tempfile.TemporaryDirectory() as directory:
                    directory = pathlib.Path(directory)
                    log, key = directory / "a.log", directory / "key"
                    log.write_bytes(b"".join(line + b"\n" for line in LINES))
                    key.write_text(KEY)
                    command = [AGENT, "--include", log, "--state-dir", directory / "state", "--sink", sink.format(server.server_address[1])]
                    command += ["--compression", compression, "--label", "service.name=web", "--forward-shared-key-file", key]
                    command += ["--admin-addr", "127.0.0.1:0", "--exit-at-eof", "--shutdown-timeout", "5s"]
                    subprocess.run(command, check=True, timeout=30, stderr=subprocess.DEVNULL)
                    check(f"{handler.__name__.lower()} {compression}", handler.got, log)
            server.shutdown()


main()
