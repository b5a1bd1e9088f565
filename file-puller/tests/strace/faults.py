"""A sync in which one system call fails, for every system call that it makes.

A volume has one release, and the source has another. `strace` lets the N-th call of a kind fail, in whichever thread that is. After
each run:

- the release that `current` names is the old one or the new one, byte for byte, and every other release on the volume is complete
- the exit code is 0 where the new release is published; else 74 if a call on the volume failed, and 69 if one on the network did
- no release is published whose files or names could not be synced to the disk
- it took a bounded time
- the next sync, in which nothing fails, publishes the new release and leaves nothing in `.staging`

Then the same with SIGKILL at each call that changes the volume.
"""

import concurrent.futures
import contextlib
import gzip
import hashlib
import http.server
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "git"))

from server import GitServer

BINARY = os.environ["FILE_PULLER"]
OLD = {"index.html": b"old", "same.css": b"a{}", "d/e/deep.txt": b"deep", "gone/away": b"gone", "moved.txt": b"moved"}
NEW = {"index.html": b"new", "same.css": b"a{}", "d/e/deep.txt": b"deeper", "more/f": b"f", "more/g": b"f", "d/moved.txt": b"moved"}
# The new state as an image's layer over the old one.
OVER_OLD = {path: content for path, content in NEW.items() if OLD.get(path) != content} | {".wh.gone": b"", ".wh.moved.txt": b""}
# What a run that is traced may take, on a machine that does other things as well.
BOUND = 60

# Calls on files, directories and sockets. What is left out has no place where it could fail (`futex`), or fails only in a process
# that is at its end anyway (memory).
SYNCS = {"fsync", "fdatasync", "syncfs"}
CHANGES = {"write", "writev", "pwrite64", "mkdirat", "unlinkat", "unlink", "rmdir", "renameat", "renameat2", "rename", "linkat", "symlinkat",
           "fchmod", "fchmodat", "fchmodat2", "utimensat", "ftruncate", "copy_file_range", "sendfile", "mkdir", "openat"} | SYNCS
CALLS = CHANGES | {"read", "pread64", "close", "lseek", "getdents64", "newfstatat", "fstat", "statx", "lstat", "stat", "readlink", "readlinkat", "statfs",
                   "fstatfs", "fcntl", "flock", "faccessat", "faccessat2", "access", "open", "dup", "socket", "connect", "sendto", "recvfrom", "sendmsg", "recvmsg",
                   "getsockopt", "setsockopt", "getsockname", "getpeername", "clone3", "getcwd"}



def manifest(files):
    lines = [
        {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "mode": "0644"}
        for path, content in sorted(files.items())
    ]
    return json.dumps({"format": "sidecar-manifest/1", "created": "2026-01-01T00:00:00Z", "files": lines}).encode()


def archive(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, content in sorted(files.items()):
            info = tarfile.TarInfo(path)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def image(repository, *layers):
    """The pages of a registry that has an image of these layers, lowest first, under the tag v1."""
    pages = {}

    def blob(content, kind):
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        pages[f"/v2/{repository}/blobs/{digest}"] = content
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(content)}

    tars = [archive(layer) for layer in layers]
    digests = [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars]
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": digests}}
    described = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), "config.v1+json"),
        "layers": [blob(gzip.compress(tar), "layer.v1.tar+gzip") for tar in tars],
    }
    return {**pages, f"/v2/{repository}/manifests/v1": json.dumps(described).encode()}


class Web:
    """Serves both states, each under a path of its own, and is a registry."""

    def __init__(self):
        pages = {}
        for name, files in [("old", OLD), ("new", NEW)]:
            pages[f"/{name}/manifest.json"] = manifest(files)
            pages[f"/{name}/site.tar"] = archive(files)
            pages.update({f"/{name}/{path}": content for path, content in files.items()})
        pages |= image("old", OLD) | image("new", OLD, OVER_OLD)

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                self.do_GET()

            def do_GET(self):
                content = pages.get(self.path)
                digest = hashlib.sha256(content or b"").hexdigest()
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.send_header("ETag", f'"{digest[:16]}"')
                self.send_header("Docker-Content-Digest", f"sha256:{digest}")
                # The other end may be gone by now.
                with contextlib.suppress(OSError):
                    self.end_headers()
                    if self.command == "GET":
                        self.wfile.write(content or b"")

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path):
        return f"http://127.0.0.1:{self.server.server_port}/{path}"


def repositories(root):
    """A server of one repository for each state; the new one has the old one's commit as its parent."""
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "gc.auto=0"]
    git = lambda *arguments, cwd: subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True)
    for name, states in [("old", [OLD]), ("new", [OLD, NEW])]:
        path = root / name
        git("init", "--quiet", "--initial-branch=main", str(path), cwd="/")
        for files in states:
            for entry in path.iterdir():
                if entry.name != ".git":
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            for file, content in files.items():
                (path / file).parent.mkdir(parents=True, exist_ok=True)
                (path / file).write_bytes(content)
            git("add", "--all", cwd=path)
            subprocess.run(["git", *identity, "commit", "--quiet", "--message", "state"], cwd=path, check=True,
                           env={**os.environ, "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z"})
    return GitServer(str(root))


def files_of(tree):
    return {str(file.relative_to(tree)): file.read_bytes() for file in tree.rglob("*") if not file.is_dir() or file.is_symlink()}


class Case:
    """One source, in its old and its new state."""

    def __init__(self, name, old, new, scratch):
        self.name, self.new, self.scratch = name, new, scratch
        self.before = scratch / f"before-{name}"
        subprocess.run([BINARY, "--once", "--log-level", "error", "--source", old, "--volume", self.before], check=True)

    def command(self, volume):
        return [BINARY, "--once", "--source", self.new, "--volume", str(volume), "--keep", "9", "--sync-timeout", "10s"]

    def volume(self):
        volume = pathlib.Path(tempfile.mkdtemp(dir=self.scratch)) / "volume"
        # What releases share, they share here, too.
        subprocess.run(["cp", "-a", self.before, volume], check=True)
        return volume

    def calls(self):
        """How often each call is made, in the thread that makes the most of it."""
        volume = self.volume()
        trace = volume.parent / "trace"
        kinds = ",".join(f"?{call}" for call in sorted(CALLS))
        subprocess.run(["strace", "-f", "-qq", "-o", trace, "-e", f"trace={kinds}", *self.command(volume)], check=True, capture_output=True)
        counts = {}
        for line in trace.read_text().splitlines():
            found = re.match(r"(\d+)\s+(\w+)\(", line)
            if found:
                counts[found[2], found[1]] = counts.get((found[2], found[1]), 0) + 1
        most = {}
        for (call, _), count in counts.items():
            most[call] = max(most.get(call, 0), count)
        return most

    def run(self, call, number, fault):
        """One run, and what is wrong after it."""
        volume = self.volume()
        trace = volume.parent / "trace"
        inject = f"inject={call}:{fault}:when={number}"
        command = ["strace", "-f", "-qq", "-yy", "-o", trace, "-e", f"trace={call}", "-e", inject, *self.command(volume)]
        began = time.monotonic()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND)
        except subprocess.TimeoutExpired:
            return [f"it still ran after {BOUND} s"]
        took = time.monotonic() - began
        injected = [line for line in trace.read_text(errors="replace").splitlines() if "(INJECTED)" in line]
        killed = "signal" in fault
        if not killed and not injected:
            return []
        wrong = self.judge(volume, done, injected, killed)
        again = subprocess.run([*self.command(volume), "--log-level", "error"], capture_output=True, text=True, timeout=BOUND)
        if again.returncode != 0:
            wrong.append(f"the next sync ends with {again.returncode}: {again.stderr}")
        elif files_of((volume / "current").resolve()) != NEW:
            wrong.append("the next sync does not publish the new release")
        left = [entry for entry in (volume / ".staging").iterdir() if entry.name != "lock" and any(entry.iterdir())]
        if left:
            wrong.append(f"left in .staging: {left}")
        if wrong:
            wrong += [f"took {took:.1f} s", *injected, done.stderr]
        shutil.rmtree(volume.parent)
        return wrong

    def judge(self, volume, done, injected, killed):
        wrong = []
        seen = files_of((volume / "current").resolve()) if (volume / "current").exists() else None
        if seen not in (OLD, NEW):
            wrong.append(f"TORN: current has {seen}")
        for described in (volume / "releases").glob("*.json"):
            tree = described.with_suffix("")
            # A manifest is there first: without its tree it is not a release.
            if tree.is_dir() and files_of(tree) not in (OLD, NEW):
                wrong.append(f"TORN: {tree.name} has {files_of(tree)}")
        if killed:
            return wrong
        # The dynamic linker, before there is a program.
        if done.returncode == 127:
            return wrong
        on_volume = [line for line in injected if str(volume) in line]
        on_network = [line for line in injected if "TCP:" in line or "UDP:" in line or " connect(" in line or " socket(" in line]
        allowed = {0}
        if on_volume:
            allowed.add(74)
        if on_network:
            allowed.add(69)
        if len(on_volume) + len(on_network) < len(injected):
            # Nobody's file: the event loop's own, or one of the system.
            allowed |= {69, 70, 74}
        if done.returncode not in allowed:
            wrong.append(f"exit code {done.returncode}, and not one of {sorted(allowed)}")
        if done.returncode == 0 and seen != NEW:
            wrong.append("exit code 0, and the new release is not published")
        if done.returncode != 0 and seen == NEW and on_volume:
            wrong.append(f"exit code {done.returncode}, and the new release is published")
        if done.returncode != 0 and not done.stderr.strip() and not any("(2<" in line for line in injected):
            wrong.append("it failed without a word")
        for line in on_volume:
            is_sync = any(f" {call}(" in line for call in SYNCS)
            # The directory that holds `current` is synced after the commit.
            if is_sync and f"<{volume}>" not in line and done.returncode == 0 and "/.git-objects" not in line:
                wrong.append("published, although it could not be synced")
        return wrong


def main():
    wanted = sys.argv[1:] or ["manifest", "archive", "git", "oci"]
    with tempfile.TemporaryDirectory(prefix="file-puller-strace-") as directory:
        scratch = pathlib.Path(directory)
        web = Web()
        (scratch / "git").mkdir()
        server = repositories(scratch / "git")
        sources = {
            "manifest": (web.url("old/manifest.json"), web.url("new/manifest.json")),
            "archive": (web.url("old/site.tar"), web.url("new/site.tar")),
            "oci": (web.url("old:v1").replace("http", "oci"), web.url("new:v1").replace("http", "oci")),
            "git": (server.url("old/.git"), server.url("new/.git")),
        }
        failed, runs = [], 0
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count() + 1) as pool:
            for name in wanted:
                case = Case(name, *sources[name], scratch)
                jobs = []
                for call, count in sorted(case.calls().items()):
                    # The kernel has no thread left, or the disk has an error.
                    faults = ["error=EAGAIN"] if call == "clone3" else ["error=EIO"]
                    if call in CHANGES:
                        faults += ["error=ENOSPC", "signal=SIGKILL"]
                    elif call == "close":
                        # A file system on another machine may say it only here.
                        faults.append("error=ENOSPC")
                    jobs += [(call, number, fault) for number in range(1, count + 1) for fault in faults]
                for job, wrong in zip(jobs, pool.map(lambda job: case.run(*job), jobs)):
                    runs += 1
                    if wrong:
                        failed.append(job)
                        print(f"{name}: {job[0]} number {job[1]}, {job[2]}:", *wrong, sep="\n    ", flush=True)
        server.close()
        print(f"{runs - len(failed)} passed, {len(failed)} failed")
        print(f"{runs} runs in {time.monotonic() - began:.0f} s", file=sys.stderr)
        sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
