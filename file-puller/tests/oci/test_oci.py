"""What file-puller publishes of an image, and what it refuses."""

import gzip
import hashlib
import http.client
import http.server
import io
import json
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import unittest
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import scenario

LAYER = "application/vnd.oci.image.layer.v1.tar"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def tar(entries):
    """Files are bytes; a link is ("symlink", target) or ("hardlink", target)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in entries.items():
            info = tarfile.TarInfo(path)
            if isinstance(content, tuple):
                info.type = tarfile.SYMTYPE if content[0] == "symlink" else tarfile.LNKTYPE
                info.linkname = content[1]
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


class Layout:
    """An image layout (the image specification's own directory format)."""

    def __init__(self, path):
        self.path = Path(path)
        (self.path / "blobs/sha256").mkdir(parents=True)
        (self.path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self.manifests = []

    def blob(self, content, kind):
        digest = hashlib.sha256(content).hexdigest()
        (self.path / "blobs/sha256" / digest).write_bytes(content)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    def image(self, *layers, platform="linux/amd64", compression="gzip"):
        system, architecture = platform.split("/")
        tars = [tar(layer) for layer in layers]
        config = {
            "os": system,
            "architecture": architecture,
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(one).hexdigest() for one in tars]},
        }
        kind = LAYER + ("+gzip" if compression == "gzip" else "")
        packed = [gzip.compress(one) if compression == "gzip" else one for one in tars]
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
            "layers": [self.blob(one, kind) for one in packed],
        }
        entry = self.blob(json.dumps(manifest).encode(), manifest["mediaType"])
        entry["platform"] = {"os": system, "architecture": architecture}
        return entry

    def index(self, *manifests):
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": list(manifests),
        }
        return self.blob(json.dumps(index).encode(), index["mediaType"])

    def tag(self, entry, name="it"):
        entry = {**entry, "annotations": {"org.opencontainers.image.ref.name": name}}
        index = {"schemaVersion": 2, "manifests": [entry]}
        (self.path / "index.json").write_text(json.dumps(index))


class Front:
    """Before the registry: demands tokens, and gives blobs from another place."""

    def __init__(self, port):
        self.requests, self.password, self.storage, self.spoil = [], None, False, None
        self.tokens = 0
        front = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def reply(self, status, headers, body=b""):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_HEAD(self):
                self.do_GET()

            def do_GET(self):
                front.requests.append((self.command, self.path, self.headers.get("Authorization")))
                if self.path.startswith("/token"):
                    if front.password and self.headers.get("Authorization") != front.password:
                        return self.reply(401, {})
                    front.tokens += 1
                    return self.reply(200, {}, json.dumps({"token": f"t{front.tokens}", "expires_in": 300}).encode())
                if self.headers.get("Authorization") != f"Bearer t{front.tokens}" and not self.path.startswith("/storage"):
                    realm = f'Bearer realm="{front.base}/token",service="it",scope="repository:site:pull"'
                    return self.reply(401, {"WWW-Authenticate": realm})
                if front.storage and "/blobs/" in self.path and not self.path.startswith("/storage"):
                    return self.reply(307, {"Location": f"/storage{self.path}"})
                connection = http.client.HTTPConnection("127.0.0.1", port)
                path = self.path.removeprefix("/storage")
                connection.request(self.command, path, headers={"Accept": self.headers.get("Accept", "*/*")})
                answer = connection.getresponse()
                body = answer.read()
                if front.spoil and "/blobs/" in path:
                    body = front.spoil(body)
                kept = {name: answer.headers[name] for name in ("Content-Type", "Docker-Content-Digest") if name in answer.headers}
                self.send_response(answer.status)
                for name, value in kept.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.base = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


class Scenario(scenario.Scenario):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.port = free_port()
        config = Path(directory.name, "config.yml")
        config.write_text(
            f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {directory.name}/registry\n"
            f"http:\n  addr: 127.0.0.1:{cls.port}\n"
        )
        cls.registry = subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        cls.addClassCleanup(cls.registry.wait)
        cls.addClassCleanup(cls.registry.kill)
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{cls.port}/v2/").close()
                break
            except OSError:
                assert time.monotonic() < deadline, "the registry does not answer"
                time.sleep(0.05)

    def setUp(self):
        super().setUp()
        self.layouts = 0
        self.name = self.id().rsplit(".", 1)[1].replace("_", "-")
        self.url = f"oci://127.0.0.1:{self.port}/{self.name}:v1"

    def layout(self):
        self.layouts += 1
        return Layout(self.root / f"layout-{self.layouts}")

    def push(self, layout, entry, *flags):
        layout.tag(entry)
        subprocess.run(
            ["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", *flags,
             f"oci:{layout.path}:it", self.url.replace("oci:", "docker:")],
            check=True, capture_output=True,
        )

    def push_image(self, *layers, **options):
        layout = self.layout()
        self.push(layout, layout.image(*layers, **options))


class Images(Scenario):
    def test_layers_and_whiteouts(self):
        self.push_image(
            {"index.html": b"old", "gone.html": b"x", "dir/a": b"1", "dir/b": b"2", "kept/c": b"3", "file": b"f"},
            {"index.html": b"new", ".wh.gone.html": b"", "dir/.wh..wh..opq": b"", "dir/d": b"4", "kept/link": ("symlink", "../index.html")},
            {"file/inside": b"5", "kept/.wh.c": b"", "hard": ("hardlink", "index.html")},
        )
        self.assertEqual(
            self.published(),
            {"index.html": b"new", "dir/d": b"4", "kept/link": b"new", "file/inside": b"5", "hard": b"new"},
        )

    def test_compressions(self):
        files = {"index.html": b"hello" * 1000, "css/site.css": b"a{}"}
        for flags, options in [
            ((), {"compression": "none"}),
            ((), {}),
            (("--dest-compress", "--dest-compress-format", "zstd"), {"compression": "none"}),
        ]:
            layout = self.layout()
            self.push(layout, layout.image(files, **options), *flags)
            self.assertEqual(self.published(), files)

    def test_index_and_platform(self):
        layout = self.layout()
        images = [layout.image({"arch": name.encode()}, platform=f"linux/{name}") for name in ("amd64", "arm64")]
        self.push(layout, layout.index(*images), "--all")
        self.refused("choose one with --platform: linux/amd64, linux/arm64")
        self.refused("nothing for --platform linux/riscv64", "--platform", "linux/riscv64")
        self.assertEqual(self.published("--platform", "linux/arm64"), {"arch": b"arm64"})
        layout = self.layout()
        self.push(layout, layout.index(layout.image({"arch": b"only"})), "--all")
        self.assertEqual(self.published(), {"arch": b"only"})

    def test_digest(self):
        self.push_image({"index.html": b"one"})
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v2/{self.name}/manifests/v1",
            headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
        )
        with urllib.request.urlopen(request) as answer:
            digest = answer.headers["Docker-Content-Digest"]
        self.push_image({"index.html": b"two"})
        self.assertEqual(self.published(), {"index.html": b"two"})
        pinned = self.url.replace(":v1", f"@{digest}")
        self.assertEqual(self.published(url=pinned), {"index.html": b"one"})
        self.refused("404", url=self.url.replace(":v1", "@sha256:" + "0" * 64), code=69)

    def test_what_is_refused(self):
        for layers, reason in [
            (({"link": ("symlink", "/etc/passwd")},), "that leads out"),
            (({"a": ("symlink", "b"), "b/x": b""}, {"a/y": b""}), "a/y lies beneath a path that is a file of a lower layer"),
            (({"x": b""}, {".wh.x": b""}), "its layers hold no file"),
        ]:
            self.push_image(*layers)
            self.refused(reason)
        layout = self.layout()
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": layout.blob(b"{}", "application/vnd.oci.empty.v1+json"),
            "layers": [layout.blob(b"text", "text/plain")],
        }
        entry = layout.blob(json.dumps(manifest).encode(), manifest["mediaType"])
        self.push(layout, entry)
        self.refused('layer 1 has the media type "text/plain"')
        self.push_image({"zeros": bytes(1 << 20)}, {"x": b"1"})
        self.refused("more than --max-file-size", "--max-file-size", "1000")
        self.refused("--max-archive-size", "--max-archive-size", "100")
        self.refused("--public-key is for manifests", "--public-key", "x", code=64)

    def test_subdir_and_exclude(self):
        self.push_image({"site/index.html": b"x", "site/a.map": b"m", "etc/passwd": b"p", "dev": ("symlink", "/dev")})
        self.assertEqual(self.published("--subdir", "site", "--exclude", "*.map"), {"index.html": b"x"})

    def test_artifact_of_an_empty_config(self):
        layout = self.layout()
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/vnd.example.site",
            "config": layout.blob(b"{}", "application/vnd.oci.empty.v1+json"),
            "layers": [layout.blob(gzip.compress(tar({"index.html": b"x"})), LAYER + "+gzip")],
        }
        entry = layout.blob(json.dumps(manifest).encode(), manifest["mediaType"])
        self.push(layout, entry)
        self.assertEqual(self.published(), {"index.html": b"x"})


class Documents(Scenario):
    def test_the_documented_push_makes_an_image(self):
        document = (Path(__file__).parents[3] / "docs/sources.md").read_text()
        commands = document.split("```text recipe=oci-push\n")[1].split("```")[0]
        named = "docker://registry.example/team/site:v1"
        self.assertIn(named, commands)
        # The test's registry speaks no TLS.
        commands = commands.replace(named, self.url.replace("oci:", "docker:"))
        commands = commands.replace("skopeo copy", "skopeo copy --quiet --insecure-policy --dest-tls-verify=false")
        (self.root / "site/css").mkdir(parents=True)
        (self.root / "site/index.html").write_text("<h1>hello</h1>")
        (self.root / "site/css/site.css").write_text("a{}")
        subprocess.run(["bash", "-euc", commands], cwd=self.root, check=True, capture_output=True)
        self.assertEqual(self.published(), {"index.html": b"<h1>hello</h1>", "css/site.css": b"a{}"})
        # What containerd wants of an image volume: a config that names the layers' content.
        manifest = self.get("manifests/v1")
        self.assertEqual(manifest["config"]["mediaType"], "application/vnd.oci.image.config.v1+json")
        self.assertEqual([layer["mediaType"] for layer in manifest["layers"]], [LAYER + "+gzip"])
        self.assertEqual(len(self.get(f"blobs/{manifest['config']['digest']}")["rootfs"]["diff_ids"]), 1)

    def get(self, what):
        headers = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/v2/{self.name}/{what}", headers=headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)


class Following(Scenario):
    def setUp(self):
        super().setUp()
        self.front = Front(self.port)
        self.addCleanup(self.front.close)
        self.front_url = self.front.base.replace("http:", "oci:") + f"/{self.name}:v1"

    def test_no_change_is_one_head(self):
        self.push_image({"index.html": b"one"})
        _, port = self.daemon(url=self.front_url)
        self.sync(port)
        self.front.requests.clear()
        self.assertEqual(self.sync(port)["result"], "unchanged")
        self.assertEqual([(method, path) for method, path, _ in self.front.requests], [("HEAD", f"/v2/{self.name}/manifests/v1")])
        self.push_image({"index.html": b"two"})
        self.assertEqual(self.sync(port)["result"], "published")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/status") as answer:
            self.assertRegex(json.load(answer)["digest"], "^sha256:[0-9a-f]{64}$")
        # The token has expired on the other side.
        self.front.tokens += 1
        self.assertEqual(self.sync(port)["result"], "unchanged")

    def test_an_unchanged_image_is_not_fetched_again_after_a_restart(self):
        self.push_image({"index.html": b"one", "notes.txt": b"n"})
        one = self.published(url=self.front_url)
        asked = lambda: [(method, path) for method, path, authorization in self.front.requests if authorization and "/manifests/" in path or "/blobs/" in path]
        self.front.requests.clear()
        self.assertEqual(self.published(url=self.front_url), one)
        self.assertEqual({method for method, _ in asked()}, {"HEAD"})
        # What is remembered holds for the release that is there, and for these flags.
        self.assertEqual(self.published("--exclude", "*.txt", url=self.front_url), {"index.html": b"one"})
        next((self.volume / "current").resolve().glob("index.html")).unlink()
        self.assertEqual(self.published("--exclude", "*.txt", url=self.front_url), {"index.html": b"one"})
        self.push_image({"index.html": b"two"})
        self.assertEqual(self.published(url=self.front_url), {"index.html": b"two"})

    def test_tokens_and_passwords(self):
        self.push_image({"index.html": b"one"})
        self.assertEqual(self.published(url=self.front_url), {"index.html": b"one"})
        self.front.password = "Basic bWU6c2VjcmV0"
        self.refused("401", url=self.front_url, code=69)
        secret = self.root / "secret"
        secret.write_text("me:secret\n")
        self.front.requests.clear()
        self.published("--basic-auth-file", str(secret), url=self.front_url)
        self.assertEqual({path.split("?")[0] for _, path, authorization in self.front.requests if authorization == self.front.password}, {"/token"})

    def test_blobs_come_from_another_place_and_are_what_they_should_be(self):
        self.push_image({"index.html": b"one"})
        self.front.storage = True
        self.assertEqual(self.published(url=self.front_url), {"index.html": b"one"})
        self.assertEqual({authorization for _, path, authorization in self.front.requests if path.startswith("/storage")}, {None})
        self.push_image({"index.html": b"two"})
        self.front.spoil = lambda body: gzip.compress(tar({"index.html": b"evil"}))
        self.refused("its SHA-256 is", url=self.front_url)
        self.front.spoil = lambda body: body[: len(body) // 2]
        done = self.pull(url=self.front_url)
        self.assertEqual(done.returncode, 78, done.stderr)

    def test_a_kill_at_every_step(self):
        one = {"index.html": b"one", "a/b": b"1", "same": b"s"}
        two = {"index.html": b"two", "a/c": b"1", "same": b"s"}
        self.push_image(one)
        self.published()
        shutil.copytree(self.volume, self.root / "first", symlinks=True)
        self.push_image({"index.html": b"old", "a/c": b"1"}, {"index.html": b"two", "same": b"s"})
        for step in range(1, 500):
            done = self.pull(FILE_PULLER_KILL_AT=str(step))
            self.assertIn(self.tree(), (one, two), f"step {step}")
            if done.returncode == 0:
                break
            self.assertEqual(done.returncode, -signal.SIGKILL, done.stderr)
            self.assertEqual(self.published(), two, f"step {step}")
            shutil.rmtree(self.volume)
            shutil.copytree(self.root / "first", self.volume, symlinks=True)
        self.assertGreater(step, 10)
        self.assertEqual(self.tree(), two)

    def test_plain_http_needs_a_flag(self):
        self.assertIn(self.pull(url="oci://localhost:1/x:v1").returncode, (69,))
        self.refused("cannot fetch https://registry.invalid/", url="oci://registry.invalid/x:v1", code=69)
        self.refused("cannot fetch http://registry.invalid/", "--allow-plain-http", url="oci://registry.invalid/x:v1", code=69)


if __name__ == "__main__":
    unittest.main()
