"""git http-backend behind a CGI server: what a forge's smart HTTP is, as small as it can be."""

import http.server
import os
import re
import subprocess
import threading
import time


class GitServer:
    """Serves the repositories beneath a directory. Attributes change how it behaves from the next request on."""

    def __init__(self, root):
        self.root = root
        self.requests = []
        self.protocol_2 = True
        # Seconds between two pieces of an answer, and bytes of each.
        self.pace = None
        # Bytes after which an answer breaks off.
        self.cut = None
        # A function that changes an answer's bytes.
        self.spoil = None
        self.redirect = {}
        # What a request has to say of who asks, and in which header.
        self.authorization, self.header = None, "Authorization"
        # What each request said of who asks.
        self.authorizations = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                server.answer(self)

            def do_POST(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def url(self, path):
        return f"git+http://127.0.0.1:{self.http.server_port}/{path}"

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def answer(self, handler):
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        # As a proxy, it stands for every host.
        path, _, query = re.sub("^http://[^/]*", "", handler.path).partition("?")
        self.requests.append((handler.command, path, body))
        self.authorizations.append(handler.headers.get(self.header))
        if self.authorization and handler.headers.get(self.header) != self.authorization:
            handler.send_response(401)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        for old, new in self.redirect.items():
            if path.startswith(old):
                handler.send_response(301)
                handler.send_header("Location", path.replace(old, new, 1) + (f"?{query}" if query else ""))
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": self.root,
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": handler.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": handler.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "REMOTE_ADDR": "127.0.0.1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }
        # git compresses what it asks from 1 KiB on.
        if "Content-Encoding" in handler.headers:
            environment["HTTP_CONTENT_ENCODING"] = handler.headers["Content-Encoding"]
        if self.protocol_2 and "Git-Protocol" in handler.headers:
            environment["GIT_PROTOCOL"] = handler.headers["Git-Protocol"]
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        status, headers = 200, []
        for line in head.decode().split("\r\n"):
            name, _, value = line.partition(": ")
            if name == "Status":
                status = int(value.split()[0])
            elif name:
                headers.append((name, value))
        if self.spoil and handler.command == "POST":
            content = self.spoil(content)
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        try:
            if self.cut is not None and handler.command == "POST" and b"PACK" in content:
                handler.wfile.write(content[: self.cut])
                handler.close_connection = True
            elif self.pace and handler.command == "POST":
                seconds, size = self.pace
                for at in range(0, len(content), size):
                    handler.wfile.write(content[at : at + size])
                    handler.wfile.flush()
                    time.sleep(seconds)
            else:
                handler.wfile.write(content)
        except OSError:
            handler.close_connection = True
