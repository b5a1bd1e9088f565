"""What file-puller publishes of a repository, and what it refuses."""

import base64
import hashlib
import http.server
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import unittest
import urllib.error
import urllib.request
import zlib
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import scenario
from server import GitServer

IDENTITY = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.com",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
}


class Repository:
    def __init__(self, path, format="sha1"):
        self.path = Path(path)
        self.git("init", "--quiet", "--initial-branch=main", f"--object-format={format}", str(path), cwd="/")

    def git(self, *arguments, cwd=None, **options):
        done = subprocess.run(
            ["git", *arguments], cwd=cwd or self.path, env={**os.environ, **IDENTITY}, capture_output=True, **options
        )
        if done.returncode != 0:
            raise AssertionError(f"git {arguments}: {done.stderr.decode()}")
        return done.stdout.decode().strip()

    def write(self, path, content, mode=0o644):
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        file.chmod(mode)

    def commit(self, files=None, message="change"):
        for path, content in (files or {}).items():
            self.write(path, content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")


class Scenario(scenario.Scenario):
    def setUp(self):
        super().setUp()
        self.server = GitServer(str(self.root))
        self.addCleanup(self.server.close)
        self.repository = Repository(self.root / "site")
        self.url = self.server.url("site/.git")

    def used(self, name=".git-objects"):
        return sum(file.stat().st_size for file in (self.volume / name).rglob("*") if file.is_file())


class Content(Scenario):
    def test_a_commit_is_what_git_archive_makes_of_it(self):
        self.repository.write("bin/run", "#!/bin/sh\n", 0o755)
        self.repository.write("a/b/c.txt", "deep")
        self.repository.write("umlaut-ü.html", "ü")
        self.repository.write("empty", "")
        (self.repository.path / "link.txt").symlink_to("a/b/c.txt")
        (self.repository.path / "dir").symlink_to("a")
        self.repository.commit()
        tree = self.published()
        self.assertEqual(tree["dir/b/c.txt"], b"deep")
        self.assertEqual(tree["link.txt"], b"deep")
        self.assertEqual((self.volume / "current/bin/run").stat().st_mode & 0o777, 0o755)
        self.assertEqual((self.volume / "current/empty").stat().st_mode & 0o777, 0o644)
        archive = self.repository.git("archive", "--output", str(self.root / "site.tar"), "HEAD")
        self.assertEqual(archive, "")
        other = self.root / "other"
        http = subprocess.Popen(
            [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(self.root), "0"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.addCleanup(http.stdout.close)
        self.addCleanup(http.wait)
        self.addCleanup(http.kill)
        port = http.stdout.readline().split("port ")[1].split()[0]
        self.published(volume=other, url=f"http://127.0.0.1:{port}/site.tar")
        self.assertEqual(os.readlink(other / "current"), os.readlink(self.volume / "current"), "the same release")

    def test_subdir_and_exclude(self):
        self.repository.commit({"site/index.html": "x", "site/app.js.map": "m", "README": "r"})
        self.assertEqual(self.published("--subdir", "site", "--exclude", "*.map"), {"index.html": b"x"})
        self.refused("no file that is published", "--subdir", "nothing", volume=self.root / "v2")

    def test_a_link_that_leads_out(self):
        self.repository.commit({"site/x": "x", "secret": "s"})
        (self.repository.path / "site/link").symlink_to("../secret")
        self.repository.commit()
        self.assertEqual(self.published()["site/link"], b"s")
        self.refused('link links to "../secret", and that leads out', "--subdir", "site")
        (self.repository.path / "out").symlink_to("/etc/passwd")
        self.repository.commit()
        self.refused('out links to "/etc/passwd", and that leads out')

    def test_submodule_and_lfs(self):
        inner = Repository(self.root / "inner")
        commit = inner.commit({"x": "x"})
        self.repository.commit({"index.html": "x"})
        self.repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},vendor/inner")
        self.repository.git("commit", "--quiet", "--message", "submodule")
        self.refused("vendor/inner is a submodule")
        self.assertEqual(self.published("--exclude", "vendor"), {"index.html": b"x"})
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
        self.repository.git("rm", "--quiet", "--cached", "vendor/inner")
        self.repository.commit({"video.mp4": pointer})
        self.refused("video.mp4 is kept in Git LFS")
        self.refused("video.mp4 is kept in Git LFS", "--exclude", "vendor")
        self.assertEqual(self.published("--git-lfs", "pointer")["video.mp4"], pointer.encode())
        self.assertEqual(self.published("--git-lfs", "pointer", "--exclude", "index.html"), {"video.mp4": pointer.encode()})

    def test_sha256(self):
        self.repository = Repository(self.root / "sha256", "sha256")
        self.url = self.server.url("sha256/.git")
        self.repository.commit({"index.html": "one"})
        self.assertEqual(self.published(), {"index.html": b"one"})
        commit = self.repository.commit({"index.html": "two"})
        self.assertEqual(self.published(), {"index.html": b"two"})
        self.assertEqual(self.published("--ref", commit), {"index.html": b"two"})

    def test_limits(self):
        self.repository.commit({f"{number}": "x" * number for number in range(20)})
        self.refused("more than --max-files 10", "--max-files", "10")
        self.refused("more than --max-file-size 10", "--max-file-size", "10")
        self.refused("--max-size 100 bytes", "--max-size", "100")
        self.refused("larger than --max-archive-size", "--max-archive-size", "100")
        self.repository.commit({"zeros": b"\0" * (64 << 20)})
        self.refused("it expands more than --max-expansion 100 times")

    def test_directories_are_held_to_their_own_limit(self):
        self.repository.commit({"a/b/c/index.html": "x"})
        self.assertEqual(self.published("--max-files", "1"), {"a/b/c/index.html": b"x"})
        self.refused("more than --max-directories 2", "--max-directories", "2", volume=self.root / "v2")

    def test_deltas_of_large_and_small_files(self):
        text = "".join(f"line {number} {hashlib.sha256(str(number).encode()).hexdigest()}\n" for number in range(20000))
        files = {f"copy-{number}.txt": text.replace("line 7 ", f"other {number} ") for number in range(5)}
        files |= {f"small-{number}": "same beginning " * 50 + str(number) for number in range(50)}
        self.repository.commit(files)
        self.repository.git("repack", "-adfq")
        self.assertEqual(self.published(), {path: content.encode() for path, content in files.items()})

    def test_small_files_become_large_by_a_delta_and_large_ones_small(self):
        """Where only a part is followed, blobs up to 4 KiB arrive in one file together."""
        lines = [f"line {number} {hashlib.sha256(str(number).encode()).hexdigest()}\n" for number in range(200)]
        for count in (40, 54, 100, 200):
            self.repository.commit({"grows": "".join(lines[:count]), f"{count}": "".join(lines[-count:])})
        self.repository.commit({f"{size}": random.Random(size).randbytes(size) for size in (0, 1, 4095, 4096, 4097)})
        self.repository.commit({"left-out": "".join(lines[:54])})
        self.repository.git("repack", "-adfq")
        expected = {path.name: path.read_bytes() for path in self.repository.path.iterdir() if path.is_file()}
        del expected["left-out"]
        self.assertEqual(self.published("--exclude", "left-out"), expected)
        # The next pack has deltas against what is published.
        for path in ("grows", "40", "4096"):
            expected[path] += b"more"
            self.repository.commit({path: expected[path]})
        done = self.pull("--exclude", "left-out")
        self.assertIn("fetched_files=3 ", done.stderr)
        self.assertEqual(self.tree(), expected)

    def test_one_blob_as_files_a_program_and_the_target_of_a_link(self):
        self.repository.commit({"a/page": "z/target", "b/page": "z/target", "z/target": "x", "site/z/target": "y"})
        self.repository.write("program", "z/target", 0o755)
        for link in ("early", "site/late"):
            (self.repository.path / link).symlink_to("z/target")
        self.repository.commit()
        tree = {"a/page": b"z/target", "b/page": b"z/target", "program": b"z/target", "early": b"x"}
        tree |= {"z/target": b"x", "site/z/target": b"y", "site/late": b"y"}
        for name, flags in [("all", ()), ("part", ("--exclude", "nothing"))]:
            volume = self.root / name
            self.assertEqual(self.published(*flags, volume=volume), tree)
            stats = [(volume / "current" / path).stat() for path in ("a/page", "b/page", "program")]
            self.assertEqual([stat.st_mode & 0o777 for stat in stats], [0o644, 0o644, 0o755])
            self.assertEqual(stats[0].st_ino, stats[1].st_ino)

    def test_what_is_not_followed_makes_no_file(self):
        self.repository.commit({"site/index.html": "x", **{f"other/{number}": f"{number}" for number in range(500)}})
        # Each file that is made is one or more places where the process can be ended.
        self.assertEqual(self.published("--subdir", "site", FILE_PULLER_KILL_AT="100"), {"index.html": b"x"})

    def test_ten_thousand_files(self):
        for number in range(10_000):
            self.repository.write(f"{number % 100}/{number}.html", f"<p>{number}</p>")
        self.repository.commit()
        self.assertEqual(len(self.published()), 10_000)
        self.repository.commit({"0/0.html": "changed"})
        done = self.pull()
        self.assertIn("fetched_files=1 ", done.stderr)
        self.assertEqual(self.tree()["0/0.html"], b"changed")


class Refs(Scenario):
    def test_branch_tag_and_commit(self):
        first = self.repository.commit({"index.html": "one"})
        self.repository.git("tag", "light")
        self.repository.git("tag", "--annotate", "--message", "t", "annotated")
        self.repository.git("checkout", "--quiet", "-b", "feature/x")
        self.repository.commit({"index.html": "two"})
        self.repository.git("checkout", "--quiet", "main")
        for protocol_2 in (True, False):
            self.server.protocol_2 = protocol_2
            for ref in ("light", "annotated", "refs/tags/annotated", "main", "HEAD"):
                self.assertEqual(self.published("--ref", ref), {"index.html": b"one"}, ref)
            self.assertEqual(self.published("--ref", "feature/x"), {"index.html": b"two"})
            self.refused('neither a branch nor a tag "gone"', "--ref", "gone", code=69)
        self.server.protocol_2 = True
        self.assertEqual(self.published("--ref", first), {"index.html": b"one"})
        self.repository.git("tag", "main")
        self.refused('"main" is a branch and a tag', "--ref", "main", code=69)

    def test_a_ref_that_is_no_commit(self):
        self.repository.commit({"index.html": "one"})
        self.repository.git("tag", "tree", "HEAD^{tree}")
        self.refused("names a Tree and not a commit", "--ref", "tree")

    def test_empty_repository(self):
        for protocol_2 in (True, False):
            self.server.protocol_2 = protocol_2
            done = self.pull()
            self.assertEqual(done.returncode, 69, done.stderr)
            self.assertRegex(done.stderr, "repository is empty|HEAD names a branch that is not there")

    def test_what_is_no_repository(self):
        self.refused("404", url=self.server.url("missing/.git"), code=69)
        self.refused("--public-key is for manifests", "--public-key", "x", code=64)
        self.refused("--allow-plain-http", url="git+http://host.example/x.git", code=64)

    def test_redirect_and_token(self):
        self.repository.commit({"index.html": "one"})
        self.server.redirect = {"/old": "/site/.git"}
        self.assertEqual(self.published(url=self.server.url("old")), {"index.html": b"one"})
        self.server.authorization = "Basic " + base64.b64encode(b"me:secret").decode()
        self.refused("401", code=69)
        secret = self.root / "secret"
        secret.write_text("me:secret\n")
        self.assertEqual(self.published("--basic-auth-file", str(secret)), {"index.html": b"one"})

    def test_tokens_and_headers_are_read_again(self):
        self.repository.commit({"index.html": "one"})
        secret = self.root / "secret"
        for flag, header, written, sent in [
            ("--bearer-token-file", "Authorization", "{}\n", "Bearer {}"),
            ("--header-file", "PRIVATE-TOKEN", "PRIVATE-TOKEN: {}\n", "{}"),
        ]:
            self.server.header, self.server.authorization = header, sent.format("first")
            secret.write_text(written.format("first"))
            process, port = self.daemon(flag, str(secret))
            self.assertIn(self.sync(port)["result"], ("published", "unchanged"))
            # Rotated, at the server first.
            self.server.authorization = sent.format("second")
            self.repository.commit({"index.html": f"{flag}"})
            with self.assertRaises(urllib.error.HTTPError) as refused:
                self.sync(port)
            refused.exception.close()
            secret.write_text(written.format("second"))
            self.assertEqual(self.sync(port)["result"], "published")
            process.kill()
            process.wait()

    def test_plain_http_where_a_flag_allows_it(self):
        self.repository.commit({"index.html": "one"})
        url, proxy = "git+http://git.example/site/.git", self.server.url("").removeprefix("git+")
        self.refused("--allow-plain-http", url=url, code=64, http_proxy=proxy)
        self.assertEqual(self.published("--allow-plain-http", url=url, http_proxy=proxy), {"index.html": b"one"})

    def test_another_host_is_followed_only_where_it_is_named_and_learns_nothing(self):
        self.repository.commit({"index.html": "one"})
        other = GitServer(str(self.root))
        self.addCleanup(other.close)
        other.redirect = {"/old": self.server.url("site/.git").removeprefix("git+")}
        secret = self.root / "secret"
        secret.write_text("me:secret\n")
        url = other.url("old")
        self.refused("--redirect-to 127.0.0.1", "--basic-auth-file", str(secret), url=url)
        flags = ["--redirect-to", "127.0.0.1", "--basic-auth-file", str(secret)]
        self.assertEqual(self.published(*flags, url=url), {"index.html": b"one"})
        self.assertEqual(set(self.server.authorizations), {None})
        self.assertNotIn(None, other.authorizations)

    def gate(self):
        """A gate that lets pass what its `status` says, what it was asked, and the flags for it."""
        asked = []

        class Gate(http.server.BaseHTTPRequestHandler):
            status = 204

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                asked.append((self.headers["Sidecar-Commit"], self.headers["Sidecar-Source"]))
                self.send_response(self.status)
                self.end_headers()

            def log_message(self, *_):
                pass

        gate = http.server.HTTPServer(("127.0.0.1", 0), Gate)
        self.addCleanup(gate.server_close)
        self.addCleanup(gate.shutdown)
        threading.Thread(target=gate.serve_forever, daemon=True).start()
        return Gate, asked, ["--gate", f"http://127.0.0.1:{gate.server_port}/"]

    def test_the_gate_is_told_the_commit(self):
        commit = self.repository.commit({"index.html": "one"})
        _, asked, flags = self.gate()
        self.published(*flags)
        self.assertEqual(asked, [(commit, self.url)])
        self.published(*flags)
        self.assertEqual(len(asked), 1, "what is published is not asked about again")

    def test_a_commit_that_the_gate_refuses_is_not_fetched_again(self):
        self.repository.commit({"index.html": "one", "same": "s"})
        gate, asked, flags = self.gate()
        _, port = self.daemon(*flags)
        self.assertIn(self.sync(port)["result"], ("published", "unchanged"))
        fetches = lambda: sum(b"command=fetch" in body for _, _, body in self.server.requests)
        gate.status = 403
        self.server.requests.clear()
        commit = self.repository.commit({"index.html": "two"})
        for _ in range(3):
            with self.assertRaises(urllib.error.HTTPError) as refused:
                self.sync(port)
            refused.exception.close()
        self.assertEqual((fetches(), asked[1:]), (1, [(commit, self.url)] * 3))
        # It is dropped when the ref moves back,
        self.repository.git("update-ref", "refs/heads/main", "HEAD~")
        self.assertTrue(self.staged())
        self.assertEqual(self.sync(port)["result"], "unchanged")
        self.assertEqual(self.staged(), [])
        self.repository.git("update-ref", "refs/heads/main", commit)
        with self.assertRaises(urllib.error.HTTPError) as refused:
            self.sync(port)
        refused.exception.close()
        # and a newer one takes its place.
        commit = self.repository.commit({"index.html": "three"})
        with self.assertRaises(urllib.error.HTTPError) as refused:
            self.sync(port)
        refused.exception.close()
        gate.status = 204
        self.assertEqual(self.sync(port)["result"], "published")
        self.assertEqual((fetches(), asked[-1]), (3, (commit, self.url)))
        self.assertEqual(self.tree(), {"index.html": b"three", "same": b"s"})
        # What is known of it was kept as well: the next fetch brings only what has changed.
        self.repository.commit({"index.html": "four"})
        self.assertEqual(self.sync(port)["fetched_files"], 1)
        self.assertEqual(self.tree(), {"index.html": b"four", "same": b"s"})

    def test_an_annotated_tag_that_the_gate_refuses_is_not_fetched_again(self):
        commit = self.repository.commit({"index.html": "one"})
        self.repository.git("tag", "--annotate", "--message", "t", "annotated")
        gate, asked, flags = self.gate()
        gate.status = 403
        _, port = self.daemon(*flags, "--ref", self.repository.git("rev-parse", "annotated"))
        for _ in range(2):
            with self.assertRaises(urllib.error.HTTPError) as refused:
                self.sync(port)
            refused.exception.close()
        self.assertEqual(asked, [(commit, self.url)] * 3)
        self.assertEqual(sum(b"command=fetch" in body for _, _, body in self.server.requests), 1)


class Changes(Scenario):
    def test_force_push_and_moved_tag(self):
        self.repository.commit({"index.html": "one", "same": "s"})
        self.repository.git("tag", "--annotate", "--message", "t", "v1")
        self.published()
        inode = (self.volume / "current/same").stat().st_ino
        self.assertEqual(self.published("--ref", "v1")["index.html"], b"one")
        self.repository.git("checkout", "--quiet", "--orphan", "other")
        self.repository.commit({"index.html": "two"})
        self.repository.git("branch", "--force", "main")
        self.repository.git("tag", "--force", "--annotate", "--message", "t", "v1")
        self.repository.git("reflog", "expire", "--expire=now", "--all")
        self.repository.git("gc", "--quiet", "--prune=now")
        self.assertEqual(self.published("--ref", "main"), {"index.html": b"two", "same": b"s"})
        self.assertEqual((self.volume / "current/same").stat().st_ino, inode, "what did not change is linked")
        self.assertEqual(self.published("--ref", "v1")["index.html"], b"two")

    def test_deleted_branch_keeps_what_is_published(self):
        self.repository.commit({"index.html": "one"})
        self.repository.git("branch", "live")
        self.published("--ref", "live")
        self.repository.git("branch", "--delete", "live")
        self.refused('neither a branch nor a tag "live"', "--ref", "live", code=69)
        self.assertEqual(self.tree(), {"index.html": b"one"})

    def test_only_what_changed_is_sent(self):
        noise = random.Random(1).randbytes(1 << 20)
        self.repository.commit({"large": noise, "small": "one"})
        self.published()
        self.repository.commit({"small": "two"})
        commit = self.repository.git("rev-parse", "HEAD")
        self.assertIn("fetched_files=1 ", (done := self.pull()).stderr)
        self.assertIn(f'commit="{commit}"', next(line for line in done.stderr.splitlines() if " published " in line))
        self.assertLess(int(done.stderr.split("fetched_bytes=")[1].split()[0]), 2000)
        self.assertEqual(self.tree(), {"large": noise, "small": b"two"})

    def test_a_change_within_a_large_file_is_sent_as_a_delta(self):
        # More than any pack may expand to without being held to --max-expansion.
        noise = bytearray(random.Random(1).randbytes(20 << 20))
        self.repository.commit({"large": bytes(noise), "a/b": "1"})
        self.published()
        noise[1000] ^= 1
        self.repository.commit({"large": bytes(noise), "a/c": "2"})
        done = self.pull()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertLess(int(done.stderr.split("fetched_bytes=")[1].split()[0]), 5000)
        self.assertEqual(self.tree(), {"large": bytes(noise), "a/b": b"1", "a/c": b"2"})

    def test_a_file_that_moves_in_from_outside(self):
        self.repository.commit({"site/index.html": "x", "other/page.html": "moved in"})
        self.published("--subdir", "site")
        self.repository.git("mv", "other/page.html", "site/page.html")
        self.repository.commit()
        self.assertEqual(self.published("--subdir", "site"), {"index.html": b"x", "page.html": b"moved in"})

    def test_damage(self):
        self.repository.commit({"index.html": "one", "a": "1"})
        self.published()
        (self.volume / "current/a").unlink()
        self.assertEqual(self.published(), {"index.html": b"one", "a": b"1"})
        known = self.volume / ".git-objects/known"
        content = bytearray(known.read_bytes())
        content[10] ^= 1
        known.write_bytes(content)
        self.repository.commit({"index.html": "two"})
        self.assertEqual(self.published(), {"index.html": b"two", "a": b"1"})

    def test_a_thousand_commits(self):
        """The objects take at most twice what a fresh fetch takes, however long a repository is followed."""
        fresh = self.root / "fresh"
        for number in range(200):
            self.repository.write(f"{number % 10}/{number}.html", f"<p>{number}</p>" * 20)
        self.repository.commit()
        process, port = self.daemon()
        batch = 25
        for number in range(0, 1000, batch):
            stream = ""
            for number in range(number, number + batch):
                content = f"<p>{number}</p>" * random.Random(number).randrange(10, 40)
                stream += f"commit refs/heads/main\ncommitter a <a@b> {1700000000 + number} +0000\ndata 1\nx\n"
                stream += "from refs/heads/main^0\n" if number % batch == 0 else ""
                stream += f"M 100644 inline {number % 10}/{number % 200}.html\ndata {len(content)}\n{content}\n"
            self.repository.git("fast-import", "--quiet", "--force", input=stream.encode())
            self.assertIn(self.sync(port)["result"], ("published", "unchanged"))
        self.sync(port)
        process.terminate()
        process.wait()
        self.published(volume=fresh)
        self.assertEqual(self.tree(fresh), self.tree())
        bytes_of = lambda volume: sum(f.stat().st_size for f in (volume / ".git-objects").iterdir())
        self.assertLessEqual(bytes_of(self.volume), 2 * bytes_of(fresh))

    def test_no_change_is_one_request_and_the_commit_is_told(self):
        commit = self.repository.commit({"index.html": "one"})
        _, port = self.daemon()
        self.assertIn(self.sync(port)["result"], ("published", "unchanged"))
        self.server.requests.clear()
        self.assertEqual(self.sync(port)["result"], "unchanged")
        self.assertEqual([path for _, path, _ in self.server.requests], ["/site/.git/git-upload-pack"])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/status") as answer:
            self.assertEqual(json.load(answer)["commit"], commit)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            self.assertIn(f'file_puller_revision_info{{kind="commit",revision="{commit}"}} 1', answer.read().decode())

    def test_the_id_of_an_annotated_tag_is_fetched_once(self):
        self.repository.commit({"index.html": "one"})
        self.repository.git("tag", "--annotate", "--message", "t", "annotated")
        tag = self.repository.git("rev-parse", "annotated")
        _, port = self.daemon("--ref", tag)
        self.assertIn(self.sync(port)["result"], ("published", "unchanged"))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/status") as answer:
            self.assertEqual(json.load(answer)["commit"], self.repository.git("rev-parse", "HEAD"))
        self.server.requests.clear()
        self.assertEqual(self.sync(port)["result"], "unchanged")
        self.assertEqual(self.server.requests, [])

    def test_a_restart_fetches_nothing(self):
        self.repository.commit({"index.html": "one"})
        self.repository.git("tag", "--annotate", "--message", "t", "annotated")
        for ref in ("HEAD", self.repository.git("rev-parse", "annotated")):
            self.published("--ref", ref)
            self.server.requests.clear()
            self.published("--ref", ref)
            self.assertEqual(sum(b"command=fetch" in body for _, _, body in self.server.requests), 0)

    def test_old_releases_go_early_for_a_commit_that_fills_the_volume(self):
        self.volume.mkdir()
        mount = 'mount -t tmpfs -o size=4m none "$0" && exec "$@"'
        inside = ["unshare", "-rm", "--", "sh", "-c", mount, str(self.volume)]
        if subprocess.run([*inside, "true"], capture_output=True).returncode != 0:
            self.skipTest("the kernel lets this user mount no disk")
        large = lambda number: random.Random(number).randbytes(1 << 20)
        self.repository.commit({"large": large(0)})
        process, port = self.daemon("--min-free", "0", "--keep", "9", "--keep-for", "0s", inside=inside)
        self.sync(port)
        for number in range(1, 6):
            self.repository.commit({"large": large(number)})
            self.assertEqual(self.sync(port)["result"], "published")
        published = Path(f"/proc/{process.pid}/root{self.volume}/current/large")
        self.assertEqual(published.read_bytes(), large(5))

    def test_a_damaged_file_is_repaired(self):
        self.repository.commit({"index.html": "one"})
        _, port = self.daemon("--verify-period", "100ms")
        self.sync(port)
        file = self.volume / "current/index.html"
        file.write_text("bad")
        deadline = time.monotonic() + 20
        while file.read_text() != "one":
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)


class Failures(Scenario):
    def test_a_bad_object(self):
        self.repository.commit({"index.html": "one" * 100})

        def spoil(content):
            at = content.find(b"PACK")
            return content if at < 0 else content[: at + 40] + bytes([content[at + 40] ^ 0xFF]) + content[at + 41 :]

        self.server.spoil = spoil
        done = self.pull("--log-level", "error")
        self.assertIn(done.returncode, (69, 78), done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertFalse((self.volume / "current").exists())
        self.server.spoil = None
        self.assertEqual(len(self.published()), 1)

    def test_a_pack_that_is_cut_off(self):
        self.repository.commit({"index.html": random.Random(1).randbytes(100_000)})
        self.server.cut = 50_000
        self.refused("cannot fetch", code=69)
        self.server.cut = None
        self.assertEqual(len(self.published()), 1)

    def test_a_slow_pack(self):
        self.repository.commit({"index.html": random.Random(1).randbytes(100_000)})
        self.server.pace = (0.01, 4096)
        self.assertEqual(len(self.published()), 1)
        self.server.pace = (0.2, 16)
        self.repository.commit({"index.html": random.Random(2).randbytes(100_000)})
        self.refused("--min-throughput", "--read-timeout", "1s", "--min-throughput", "10KiB", code=69)

    def test_a_kill_at_every_step(self):
        self.kill_at_every_step()

    def test_a_kill_at_every_step_where_a_part_is_followed(self):
        self.kill_at_every_step("--exclude", "nothing")

    def kill_at_every_step(self, *flags):
        one = {"index.html": b"one", "a/b": b"1", "same": b"s"}
        two = {"index.html": b"two", "a/c": b"1", "same": b"s"}
        self.repository.commit(one)
        self.published(*flags)
        self.repository.git("rm", "--quiet", "-r", "a")
        self.repository.commit(two)
        for step in range(1, 500):
            done = self.pull(*flags, FILE_PULLER_KILL_AT=str(step))
            self.assertIn(self.tree(), (one, two), f"step {step}")
            if done.returncode == 0:
                break
            self.assertEqual(done.returncode, -signal.SIGKILL, done.stderr)
            subprocess.run(["cp", "-a", str(self.volume), str(self.root / "copy")], check=True)
            self.assertEqual(self.published(*flags, volume=self.root / "copy"), two, f"step {step}")
            subprocess.run(["rm", "-rf", str(self.root / "copy")], check=True)
            # The next step is reached only from where this one began.
            if self.tree() == two:
                subprocess.run(["rm", "-rf", str(self.volume)], check=True)
                self.repository.git("checkout", "--quiet", "HEAD~1")
                self.published(*flags, "--ref", self.repository.git("rev-parse", "main~1"))
                self.repository.git("checkout", "--quiet", "main")
        self.assertGreater(step, 10)
        self.assertEqual(self.tree(), two)


class HostilePacks(Scenario):
    """Packs that no git makes."""

    def serve(self, objects, commit):
        def spoil(content):
            if b"PACK" not in content:
                return content
            pack = b"PACK" + (2).to_bytes(4, "big") + len(objects).to_bytes(4, "big") + b"".join(objects)
            pack += hashlib.sha1(pack).digest()
            frame = lambda payload: f"{len(payload) + 4:04x}".encode() + payload
            return b"0011shallow-info0001" .replace(b"0011shallow-info", frame(b"shallow-info\n")) + frame(b"packfile\n") + frame(b"\1" + pack) + b"0000"

        self.server.spoil = spoil

    @staticmethod
    def entry(kind, content, size=None, extra=b""):
        size = len(content) if size is None else size
        byte, size = kind << 4 | size & 15, size >> 4
        header = bytearray()
        while size:
            header.append(byte | 0x80)
            byte, size = size & 0x7F, size >> 7
        header.append(byte)
        return bytes(header) + extra + zlib.compress(content)

    def test_hostile_packs(self):
        commit = self.repository.commit({"index.html": "one"})
        blob, delta = self.entry(3, b"hello"), lambda content, extra: self.entry(6, content, extra=extra)
        back = bytes([len(blob)])
        for objects, reason in [
            ([self.entry(3, b"hello", size=4)], "larger than it says"),
            ([self.entry(3, b"hello", size=6)], "smaller than it says"),
            ([self.entry(5, b"x")], "has type 5"),
            ([delta(b"\5\5\x90\5", b"\1")], "base is nowhere before it"),
            ([blob, delta(b"\4\5\x90\5", back)], "for another base"),
            ([blob, delta(b"\5\6\x90\6", back)], "beyond its base"),
            ([blob, delta(b"\5\1\0", back)], "unknown instruction"),
            ([blob, delta(b"\5\5\x90", back)], "ends within an instruction"),
            ([blob, self.entry(6, b"\5\xff\xff\xff\xff\xff\xff\7\x90\5", extra=back)], "more than --max-size"),
            ([self.entry(3, b"", size=1 << 50)], "more than --max-size"),
            ([self.entry(7, b"\5\5\x90\5", extra=b"\0" * 20)], "did not send object 00000000"),
            ([blob], "did not send object"),
        ]:
            self.serve(objects, commit)
            self.refused(reason)
            self.assertFalse((self.volume / "current").exists())

    def test_deltas_that_build_on_one_published_file_again_and_again(self):
        size = 17 << 20
        commit = self.repository.commit({"large": random.Random(1).randbytes(size)})
        self.published()
        large = bytes.fromhex(self.repository.git("rev-parse", "HEAD:large"))
        self.repository.commit()
        varint = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14 & 0x7F | 0x80, size >> 21])
        # All of the base, in two pieces.
        first = (1 << 24) - 1
        copies = b"\xf0" + first.to_bytes(3, "little") + b"\xff" + first.to_bytes(4, "little") + (size - first).to_bytes(3, "little")
        delta = self.entry(7, varint + varint + copies, extra=large)
        self.serve([delta], commit)
        self.refused("did not send object", "--max-expansion", "1")
        self.serve([delta, delta], commit)
        self.refused("it expands more than --max-expansion 1 times", "--max-expansion", "1")


if __name__ == "__main__":
    unittest.main()
