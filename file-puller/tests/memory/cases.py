"""file-puller in a container of 64 MiB, with content at its limits.

Each case is a function that makes a source and says how it has to end: published, refused, or one of both. Whatever is published is
changed once more and published again, because then the manifest of the release before is in memory as well. After each case the
container still runs, nothing in it was killed for memory, and what the cgroup counted at any time, less the page cache that the
kernel would give back and with the sockets' memory added (version 2 counts that, version 1 does not), was below the limit.

Each case has an ext4 of its own in a file, so that the machine's disk has no part in the result, and all files of a case are gone at
once: on some disks each file that is removed takes a millisecond. Its journal is as large as a node's. What a journal holds on to
counts as the container's memory, and a large one holds on for long.
"""

import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "git"))

MIB = 1024 * 1024
LIMIT = 64 * MIB
IMAGE = sys.argv[1]
USER = 65532
# As base-native ships them; only the period is long, so that each sync is one that was asked for.
FLAGS = ["--period", "1h", "--max-backoff", "5s", "--max-size", "96MiB", "--shutdown-timeout", "5s"]
WITHIN = 300
# How a disk is made and mounted. Some tools do not make one within a file that is there already without being told.
FILE_SYSTEMS = {
    "ext4": (["mkfs.ext4", "-q", "-F", "-J", "size=1024", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"], "loop,noinit_itable"),
    "xfs": (["mkfs.xfs", "-q", "-f", "-K"], "loop"),
    "btrfs": (["mkfs.btrfs", "-q", "-f", "-K"], "loop"),
}


@contextlib.contextmanager
def disk(directory):
    """An empty file system, for one case.

    Its file and its directory are new. A container of another suite that starts meanwhile takes over the mounts that it finds, and so
    keeps a file system alive that was unmounted here: mounting the same file again would show that one.
    """
    image, root = directory / "image", directory / "disk"
    directory.mkdir()
    directory.chmod(0o755)
    root.mkdir()
    with open(image, "wb") as file:
        # Only what is written takes space.
        file.truncate(8192 * MIB)
    make, options = FILE_SYSTEMS[os.environ.get("FS", "ext4")]
    subprocess.run([*make, image], check=True)
    subprocess.run(["mount", "-o", options, image, root], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", root], check=True)
        image.unlink()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Web:
    """nginx: what is in its directory, and beneath `/c/` content that is the rest of the path."""

    def __init__(self, scratch):
        self.root, self.port = scratch / "web", free_port()
        self.root.mkdir()
        config = scratch / "nginx.conf"
        paths = "".join(f"{name}_temp_path {scratch}/{name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        config.write_text(
            f"worker_processes 1; daemon off; pid {scratch}/nginx.pid; error_log {scratch}/nginx.err;"
            "events { worker_connections 1000; }"
            f"http {{ access_log off; keepalive_requests 1000000000; {paths} default_type text/plain;"
            f"server {{ listen 127.0.0.1:{self.port}; root {self.root};"
            "location ~ ^/c/(?:[^/]*/)*([^/]*)$ { return 200 $1; } } }"
        )
        self.process = subprocess.Popen(["nginx", "-e", f"{scratch}/nginx.err", "-c", config])

    def url(self, path):
        return f"http://127.0.0.1:{self.port}/{path}"

    def manifest(self, files):
        """Writes a manifest: path, content and URL of each file."""
        now = time.time()
        lines = []
        for path, content, url in files:
            digest = hashlib.sha256(content.encode()).hexdigest()
            lines.append(f'{{"path":"{path}","size":{len(content)},"sha256":"{digest}","mode":"0644","url":"{url}"}}')
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        new = self.root / "next"
        new.write_text(f'{{"format":"sidecar-manifest/1","created":"{created}","files":[\n' + ",\n".join(lines) + "\n]}")
        new.rename(self.root / "manifest.json")
        # An hour ago, so that its ETag is not one that may stand for two contents.
        self.age = getattr(self, "age", 3600) - 10
        os.utime(self.root / "manifest.json", (now - self.age, now - self.age))
        return (self.root / "manifest.json").stat().st_size

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Puller:
    """A container with the shipped flags, and an eye on what its cgroup counts."""

    def __init__(self, source, scratch, flags=()):
        self.volume = scratch / "volume"
        self.volume.mkdir()
        os.chown(self.volume, USER, USER)
        self.admin, self.most, self.done = free_port(), 0, threading.Event()
        command = ["docker", "run", "--detach", "--network", "host", "--memory", str(LIMIT), "--memory-swap", str(LIMIT)]
        command += ["--user", f"{USER}:{USER}", "--volume", f"{self.volume}:/content", IMAGE]
        command += ["--source", source, "--volume", "/content", *FLAGS, *flags]
        command += ["--admin-addr", f"127.0.0.1:{self.admin}", "--termination-log", "/dev/null"]
        self.id = subprocess.check_output(command, text=True).strip()
        self.group = self.cgroup()
        self.watch = threading.Thread(target=self.measure_until_done, daemon=True)
        self.watch.start()

    def cgroup(self):
        for path in (f"/sys/fs/cgroup/memory/docker/{self.id}", f"/sys/fs/cgroup/system.slice/docker-{self.id}.scope",
                     f"/sys/fs/cgroup/docker/{self.id}"):
            if os.path.isdir(path):
                return pathlib.Path(path)
        raise AssertionError("the container's cgroup is not where it is looked for")

    def measure_until_done(self):
        while not self.done.wait(0.02):
            with contextlib.suppress(OSError, KeyError, ValueError):
                self.most = max(self.most, self.measure())

    def measure(self):
        """What is in use, without what the kernel would give back: page cache, and the names and inodes that it remembers."""
        stat = dict(line.split() for line in (self.group / "memory.stat").read_text().splitlines())
        if (self.group / "memory.usage_in_bytes").exists():
            # Version 1 counts the kernel's part without saying what of it can be reclaimed: all but this is user memory.
            return int(stat["total_rss"]) + self.sockets()
        return int(stat["anon"]) + int(stat["kernel_stack"]) + int(stat["pagetables"]) + int(stat.get("slab_unreclaimable", 0)) + int(stat["sock"])

    def sockets(self):
        pid = (self.group / "cgroup.procs").read_text().split()[0]
        lines = subprocess.check_output(["ss", "-tmnpH", "state", "connected"], text=True).splitlines()
        total = 0
        for line in lines:
            _, found, fields = line.partition("skmem:(")
            if found and f"pid={pid}," in line:
                values = {field.rstrip("0123456789"): int("".join(c for c in field if c.isdigit())) for field in fields.split(")")[0].split(",")}
                total += sum(values.get(key, 0) for key in ("r", "f", "w"))
        return total

    def state(self):
        return json.loads(subprocess.check_output(["docker", "inspect", "--format", "{{json .State}}", self.id]))

    def logs(self):
        return subprocess.run(["docker", "logs", self.id], capture_output=True, text=True).stderr

    def sync(self):
        """The answer to a sync that was asked for."""
        deadline = time.monotonic() + WITHIN
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=WITHIN)
                connection.request("POST", "/sync")
                return json.loads(connection.getresponse().read())
            except (OSError, http.client.HTTPException) as error:
                state = self.state()
                assert state["Running"], f"it ended: {state}\n{self.logs()[-2000:]}"
                assert time.monotonic() < deadline, f"{error}: {self.logs()[-2000:]}"
                time.sleep(0.05)

    def check(self):
        state = self.state()
        assert not state["OOMKilled"] and state["Running"], f"killed: {state}\n{self.logs()[-2000:]}"
        assert self.most < LIMIT, f"{self.most / MIB:.1f} MiB in use"

    def stop(self):
        self.done.set()
        self.watch.join()
        subprocess.run(["docker", "rm", "--force", self.id], capture_output=True)


def refused(puller, *by):
    answer = puller.sync()
    assert answer["result"] == "failed", answer
    assert any(name in answer["error"] for name in by), answer
    return f"refused: {answer['error']}"


def published(puller, change=None):
    answer = puller.sync()
    assert answer["result"] in ("published", "unchanged") and answer["release"], answer
    if change is None:
        return "published"
    change()
    answer = puller.sync()
    assert answer["result"] == "published", answer
    assert puller.sync()["result"] == "unchanged"
    return "published twice"


def files_with_long_names(count, version=0):
    """Names of 200 bytes. Contents repeat, as one request for each file would take longer and no more memory."""
    pad = "n" * 190
    for number in range(count):
        content = f"{number % 5000}v{version if number == 7 else 0}"
        yield f"d{number % 100:02}/{number:06}{pad}"[:200], content, f"c/{content}"


def manifest_at_the_limit(web, scratch):
    """100,000 files with names of 200 bytes: more than this container has memory for. The puller says so."""
    size = web.manifest(files_with_long_names(100_000))
    puller = Puller(web.url("manifest.json"), scratch)
    yield puller
    yield f"{size / MIB:.0f} MiB: " + refused(puller, "of memory", "--max-manifest-size")


def largest_manifest_that_is_followed(web, scratch):
    """As many of them as the memory is said to be enough for."""
    count = 55_000
    size = web.manifest(files_with_long_names(count))
    puller = Puller(web.url("manifest.json"), scratch)
    yield puller
    yield f"{size / MIB:.0f} MiB: " + published(puller, lambda: web.manifest(files_with_long_names(count, 1)))


def hundred_thousand_files(web, scratch):
    """The most files there may be, with names as sites have them."""
    def files(version=0):
        for number in range(100_000):
            content = f"{number % 5000}v{version if number == 7 else 0}"
            yield f"d{number % 100:02}/page-{number:06}.html", content, f"c/{content}"

    size = web.manifest(files())
    puller = Puller(web.url("manifest.json"), scratch)
    yield puller
    yield f"{size / MIB:.0f} MiB: " + published(puller, lambda: web.manifest(files(1)))


def deep_paths(web, scratch):
    """Paths of 64 segments, in 19,000 directories."""
    def files(version=0):
        for number in range(30_000):
            content = f"{number % 1000}v{version if number == 7 else 0}"
            yield f"{number // 100:04}/" + "a/" * 62 + f"{number:05}", content, f"c/{content}"

    size = web.manifest(files())
    puller = Puller(web.url("manifest.json"), scratch)
    yield puller
    yield f"{size / MIB:.0f} MiB: " + published(puller, lambda: web.manifest(files(1)))


def too_many_directories(web, scratch):
    """4,000 files, each in 63 directories of its own."""
    web.manifest((f"{n:04}/" + "a/" * 62 + "f", str(n), f"c/{n}") for n in range(4_000))
    puller = Puller(web.url("manifest.json"), scratch)
    yield puller
    yield refused(puller, "--max-directories")


def many_directories(web, scratch):
    """Files that have a directory each."""
    def files(version=0):
        for number in range(99_000):
            content = f"{number % 1000}v{version if number == 7 else 0}"
            yield f"{number:05}/f", content, f"c/{content}"

    web.manifest(files())
    puller = Puller(web.url("manifest.json"), scratch)
    yield puller
    yield published(puller, lambda: web.manifest(files(1)))


def failure_at_the_last_file(web, scratch):
    """Files that are all different. The last one is missing at first, so all others are kept for the next sync."""
    def files():
        for number in range(60_000):
            yield f"d{number % 100:02}/page-{number:06}.html", f"{number}", f"c/{number}" if number < 59_999 else "last"

    web.manifest(files())
    puller = Puller(web.url("manifest.json"), scratch)
    yield puller
    answer = puller.sync()
    assert answer["result"] == "failed" and "404" in answer["error"], answer
    (web.root / "last").write_text("59999")
    yield "failed, then " + published(puller)


def long_urls(web, scratch):
    """Files whose `url` is far longer than their path."""
    def files(version=0):
        for number in range(18_000):
            content = f"{number % 1000}v{version if number == 7 else 0}"
            yield f"f{number:05}", content, "c/" + "u" * 200 + "/" + "v" * 700 + f"/{content}"

    size = web.manifest(files())
    puller = Puller(web.url("manifest.json"), scratch)
    yield puller
    yield f"{size / MIB:.0f} MiB: " + published(puller, lambda: web.manifest(files(1)))


def header(path, size, link=""):
    """A ustar header of a file or, with its target, of a symbolic link; a long path is divided at a slash."""
    directory, _, name = path.rpartition("/")
    prefix, name = (directory, name) if len(path) > 100 else ("", path)
    block = bytearray(512)
    for at, text in [(0, name), (100, "0000644"), (108, "0000000"), (116, "0000000"), (124, f"{size:011o}"), (136, "00000000000"),
                     (148, " " * 8), (156, "2" if link else "0"), (157, link), (257, "ustar\0" + "00"), (345, prefix)]:
        block[at : at + len(text)] = text.encode()
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def write_archive(web, files, version):
    with open(web.root / "next.tar", "wb") as out:
        for number, path in enumerate(files):
            content = f"{number % 5000}v{version if number == 7 else 0}".encode()
            out.write(header(path, len(content)) + content.ljust(512, b"\0"))
        out.write(bytes(10240))
    (web.root / "next.tar").rename(web.root / "site.tar")
    moment = time.time() - 3600 + 10 * version
    os.utime(web.root / "site.tar", (moment, moment))


def archive_at_the_limit(web, scratch):
    """100,000 files with names of 200 bytes: more than this container has memory for. The puller says so."""
    write_archive(web, (f"{n % 100:02}{'d' * 108}/{n:06}{'n' * 83}" for n in range(100_000)), 0)
    puller = Puller(web.url("site.tar"), scratch, ["--max-archive-size", "256MiB"])
    yield puller
    yield refused(puller, "more memory than")


def archive_of_a_hundred_thousand_files(web, scratch):
    """The most files there may be, with names as sites have them."""
    files = [f"d{n % 100:02}/page-{n:06}.html" for n in range(100_000)]
    write_archive(web, files, 0)
    puller = Puller(web.url("site.tar"), scratch, ["--max-archive-size", "256MiB"])
    yield puller
    yield published(puller, lambda: write_archive(web, files, 1))


def long_name(path):
    """A pax header for a path that is too long for any other."""
    length = len(f" path={path}\n")
    record = f"{length + len(str(length + len(str(length))))} path={path}\n".encode()
    block = bytearray(header("pax", len(record)))
    block[156:157] = b"x"
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block) + record.ljust(-len(record) // 512 * -512, b"\0")


def few_entries_of_many_names():
    """A directory of 1,000 empty files, and 98 links to it from beneath a long path: 1,100 entries that stand for 99,000 files."""
    files = [f"d/{number:04}{'n' * 196}" for number in range(1_000)]
    deep = "/".join(["a" * 200] * 4)
    return files, [(f"{deep}/{number:02}", "../" * 4 + "d") for number in range(98)]


def links_that_expand(web, scratch):
    """What few entries of an archive expand to takes more memory than there is. The puller says so."""
    files, links = few_entries_of_many_names()
    with open(web.root / "site.tar", "wb") as out:
        out.writelines(header(path, 0) if len(path) <= 100 else long_name(path) + header("long", 0) for path in files)
        out.writelines(long_name(path) + header("long", 0, target) for path, target in links)
        out.write(bytes(10240))
    puller = Puller(web.url("site.tar"), scratch)
    yield puller
    yield refused(puller, "more memory than")


def refused_repository(scratch, *commit):
    """A puller of a repository with one commit, and its word for that the commit takes too much memory."""
    repository = Repository(scratch)
    repository.commit(*commit)
    puller = Puller(repository.url(), scratch)
    yield puller
    yield refused(puller, "more memory than")
    repository.server.close()


def links_that_expand_in_a_repository(web, scratch):
    """The same of a commit."""
    files, links = few_entries_of_many_names()
    yield from refused_repository(scratch, [(path, "", "") for path in files], links)


def links_that_expand_to_directories(web, scratch):
    """1,000 directories, each with a file, and links to all of them: as many directories as there may be, and one link more."""
    def write(links):
        with open(web.root / "next.tar", "wb") as out:
            out.writelines(header(f"d/{number:03}/f", 0) for number in range(1_000))
            out.writelines(header(f"{number:02}", 0, "d") for number in range(links))
            out.write(bytes(10240))
        (web.root / "next.tar").rename(web.root / "site.tar")

    write(50)
    puller = Puller(web.url("site.tar"), scratch, ["--max-directories", "51051"])
    yield puller
    said = published(puller)
    write(51)
    yield f"{said}, then " + refused(puller, "--max-directories")


class Repository:
    """A bare repository behind `git http-backend`, whose commits each replace everything."""

    def __init__(self, scratch):
        from server import GitServer

        self.root = scratch / "git"
        self.root.mkdir()
        subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", self.root / "site.git"], check=True)
        self.server = GitServer(str(self.root))

    def url(self):
        return self.server.url("site.git")

    def commit(self, files, links=()):
        importing = subprocess.Popen(["git", "-C", self.root / "site.git", "fast-import", "--quiet", "--force"], stdin=subprocess.PIPE)
        write = importing.stdin.write
        write(b"commit refs/heads/main\ncommitter a <a@example.com> 1700000000 +0000\ndata 1\nx\n")
        for path, content, _ in files:
            write(f"M 100644 inline {path}\ndata {len(content)}\n{content}\n".encode())
        for path, target in links:
            write(f"M 120000 inline {path}\ndata {len(target)}\n{target}\n".encode())
        write(b"\n")
        importing.stdin.close()
        assert importing.wait() == 0

    def tag(self, count, name_length):
        """Adds tags that name what `main` does."""
        git = ["git", "-C", self.root / "site.git"]
        main = subprocess.check_output([*git, "rev-parse", "main"], text=True).strip()
        with open(self.root / "site.git" / "packed-refs", "w") as out:
            out.write("# pack-refs with: peeled fully-peeled sorted \n")
            out.writelines(f"{main} refs/tags/{number:07}{'n' * (name_length - 17)}\n" for number in range(count))


def repository_at_the_limit(web, scratch):
    """100,000 files with names of 200 bytes in a git repository: more than this container has memory for. The puller says so."""
    yield from refused_repository(scratch, files_with_long_names(100_000))


def largest_repository_that_is_followed(web, scratch):
    """As many files as the contract promises for this memory, each with a content of its own. Then every content changes."""
    def files(version):
        return ((f"d{n % 100:02}/page-{n:06}.html", f"{n}v{version}", "") for n in range(60_000))

    repository = Repository(scratch)
    repository.commit(files(0))
    puller = Puller(repository.url(), scratch)
    yield puller
    yield published(puller, lambda: repository.commit(files(1)))
    repository.server.close()


def repository_of_more_objects_than_files(web, scratch):
    """As many objects as the contract promises for this memory, of which few are followed."""
    def files(version):
        yield "site/index.html", f"v{version}", ""
        # git looks through a directory for each file that it imports.
        yield from ((f"d{n % 400:03}/{n:06}", f"{n}v{version}", "") for n in range(180_000))

    repository = Repository(scratch)
    repository.commit(files(0))
    puller = Puller(repository.url(), scratch, ["--subdir", "site"])
    yield puller
    yield published(puller, lambda: repository.commit(files(1)))
    repository.server.close()


def list_of_refs(web, scratch):
    """As many refs as the contract promises for this memory, from a server that lists all of them."""
    repository = Repository(scratch)
    repository.server.protocol_2 = False
    repository.commit([("index.html", "v0", "")])
    repository.tag(210_000, 17)
    puller = Puller(repository.url(), scratch)
    yield puller
    yield published(puller, lambda: repository.commit([("index.html", "v1", "")]))
    repository.server.close()


CASES = [manifest_at_the_limit, largest_manifest_that_is_followed, hundred_thousand_files, deep_paths, many_directories, too_many_directories,
         failure_at_the_last_file, long_urls,
         archive_at_the_limit, archive_of_a_hundred_thousand_files, links_that_expand, links_that_expand_in_a_repository,
         links_that_expand_to_directories, repository_at_the_limit, largest_repository_that_is_followed,
         repository_of_more_objects_than_files, list_of_refs]


def run(case, scratch):
    """Whether a case ended as it has to."""
    began, puller = time.monotonic(), None
    web = Web(scratch)
    try:
        steps = case(web, scratch)
        puller = next(steps)
        said = next(steps)
        puller.check()
        print(f"{case.__name__}: {said}; {puller.most / MIB:.1f} MiB in use, {time.monotonic() - began:.0f} s", flush=True)
        return True
    except AssertionError as error:
        print(f"{case.__name__}: FAILED: {error}", flush=True)
        return False
    finally:
        if puller:
            puller.stop()
        web.stop()


def main():
    # Whoever ends this leaves no disk mounted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    wanted = [case for case in CASES if not sys.argv[2:] or case.__name__ in sys.argv[2:]]
    failed, began = 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="file-puller-memory-") as directory:
        os.chmod(directory, 0o755)
        for case in wanted:
            with disk(pathlib.Path(directory) / case.__name__) as scratch:
                failed += not run(case, scratch)
    print(f"{len(wanted) - failed} passed, {failed} failed")
    print(f"{time.monotonic() - began:.0f} s in all")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
