"""What the suites of git and of OCI share: a volume, a puller on it, and what is asked of both."""

import json
import os
import subprocess
import tempfile
import unittest
import urllib.request
from pathlib import Path

BINARY = os.environ["FILE_PULLER"]


class Scenario(unittest.TestCase):
    """A test with a volume of its own, of the source at `self.url`."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.volume = self.root / "volume"

    def pull(self, *flags, volume=None, url=None, **environment):
        return subprocess.run(
            [BINARY, "--once", "--source", url or self.url, "--volume", str(volume or self.volume), *flags],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
        )

    def published(self, *flags, **options):
        done = self.pull(*flags, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return self.tree(options.get("volume"))

    def refused(self, reason, *flags, code=78, **options):
        done = self.pull("--log-level", "error", *flags, **options)
        self.assertEqual((done.returncode, len(done.stderr.splitlines())), (code, 1), done.stderr)
        self.assertIn(reason, done.stderr)

    def tree(self, volume=None):
        current = ((volume or self.volume) / "current").resolve()
        return {str(file.relative_to(current)): file.read_bytes() for file in current.rglob("*") if not file.is_dir()}

    def staged(self):
        return [path.name for path in (self.volume / ".staging").glob("process-*/*") if path.name != "lock"]

    def daemon(self, *flags, url=None, inside=()):
        """A puller that goes on running, and the port of its admin server. It syncs when it starts and when it is told to, also after a
        failure. `inside` is a command that runs it."""
        process = subprocess.Popen(
            [*inside, BINARY, "--source", url or self.url, "--volume", str(self.volume), "--period", "1h", "--admin-addr", "127.0.0.1:0", *flags],
            stderr=subprocess.PIPE, text=True, env={**os.environ, "FILE_PULLER_WITHOUT": "retries"},
        )
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        for line in process.stderr:
            if "addr=" in line:
                return process, int(line.split("addr=")[1].split()[0].rsplit(":", 1)[1])
        self.fail("it ended")

    def sync(self, port):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/sync", method="POST")
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
