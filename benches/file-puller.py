#!/usr/bin/env python3
"""Measures file-puller against rclone, wget, curl with tar, and git, side by side, on this machine.

    benches/file-puller.py [--rounds 5] [--only NAME,…] [--sizes 100,…] [--at DIR] [--json FILE] [--install] [--network own|shared]

Needs nginx, rclone, wget, curl and git (Debian's packages; --install gets them) and a release build of file-puller. The content is
10,000 files of 0.5 to 20 KB in 100 directories, served by nginx on loopback. A round runs each program in turn into an empty directory,
so that what else the machine does hits all of them; what is printed is the median of the rounds and its ratio to file-puller's.
Nothing is removed before the end: ext4 without a journal does not use an inode again for minutes, and searches past all that were
removed just now for each file that is made, so that one run would pay for clearing up after another.

CPU is user and system time of the whole process with its threads: from wait4(2) for programs that end, from /proc/<pid>/stat for
the puller that goes on running.

All of it is in a network namespace of its own (--network own), as web-server's benchmark is.

With --json, what was measured is also written to a file, from which the documents' charts are drawn. Cases that were not run keep
what the file says of them.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import network
from report import Report

REPO = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target"))
PULLER = pathlib.Path(os.environ.get("BINARIES", TARGET / "release")) / "file-puller"
TICK = os.sysconf("SC_CLK_TCK")
PARTS = ["full", "archive", "poll", "idle", "change", "busy", "git", "growth"]

sys.path.insert(0, str(REPO / "file-puller" / "tests" / "git"))

REPORT = Report()
record = REPORT.record

NGINX = """
worker_processes 1; daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx.err;
events {{ worker_connections 1000; }}
http {{
  sendfile on; tcp_nopush on; keepalive_requests 1000000000; access_log off;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  server {{ listen 127.0.0.1:{port}; root {root}; autoindex on; autoindex_exact_size on; }}
}}
"""


def make_tree(root, files):
    make_files(root, files)
    describe(root)


def make_files(root, files):
    """The same bytes at every run: 0.5 to 20 KB each, a hundred files to a directory."""
    chance = random.Random(4)
    for number in range(files):
        directory = root / f"d{number // 100:03}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number:06}.bin").write_bytes(chance.randbytes(chance.randrange(500, 20_000)))


def describe(root):
    subprocess.run([PULLER, "manifest", root, "--output", root / "manifest.json"], check=True)


@contextlib.contextmanager
def nginx(root):
    with tempfile.TemporaryDirectory() as directory, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        config = pathlib.Path(directory) / "nginx.conf"
        config.write_text(NGINX.format(dir=directory, port=port, root=root))
        os.chmod(directory, 0o755)
        process = subprocess.Popen(["nginx", "-c", config], stderr=subprocess.DEVNULL)
        try:
            until(lambda: connects(port))
            yield port
        finally:
            process.terminate()
            process.wait()


def connects(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit("waited in vain")
        time.sleep(0.002)


def peak_kib(pid):
    """The kernel's high-water mark. ru_maxrss would not do: it begins with what this Python had when it forked."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", status)
    return int(found[1]) if found else 0


def run(command):
    """Wall seconds, CPU seconds and peak KiB of a program that ends."""
    with tempfile.TemporaryFile() as complaints:
        began = time.monotonic()
        process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=complaints)
        peak, pid = 0, 0
        while pid == 0:
            time.sleep(0.005)
            peak = max(peak, peak_kib(process.pid))
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            complaints.seek(0)
            sys.exit(f"{command[0]} ended with {process.returncode}: {complaints.read().decode()[-500:]}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "kib": peak}


class Puller:
    """file-puller as it runs in a Pod, syncing when it is told to."""

    def __init__(self, source, volume, period="1h"):
        command = [PULLER, "--source", source, "--volume", volume]
        command += ["--period", period, "--keep", "1", "--keep-for", "0s", "--admin-addr", "127.0.0.1:0", "--log-format", "json"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            event = json.loads(line)
            if event.get("message") == "listening":
                self.admin = int(event["addr"].rsplit(":", 1)[1])
            if event.get("message") == "published":
                break
        self.proc = pathlib.Path(f"/proc/{self.process.pid}")

    def sync(self):
        """What the sync says of itself, and how long the answer took."""
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.admin)
        connection.request("POST", "/sync")
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer, time.monotonic() - began

    def cpu(self):
        fields = (self.proc / "stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def peak_kib(self):
        return peak_kib(self.process.pid)

    def phases(self):
        """Seconds in each phase of its syncs so far, by its own histograms."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin)
        connection.request("GET", "/metrics")
        metrics = connection.getresponse().read().decode()
        connection.close()
        sums = re.findall(r'phase_duration_seconds_sum{phase="(\w+)"} (\S+)', metrics)
        return {phase: float(seconds) for phase, seconds in sums}

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate()


def programs(port):
    base = f"http://127.0.0.1:{port}/"
    return {
        "file-puller": lambda to: [PULLER, "--once", "--source", base + "manifest.json", "--volume", to],
        "rclone sync, 16 transfers": lambda to: ["rclone", "sync", "--config", "", "--http-url", base, ":http:", to, "--transfers", "16"],
        "wget -m": lambda to: ["wget", "-q", "-m", "-np", "-nH", "-P", to, base],
    }


def full(port, scratch, rounds):
    print("\n| full sync | CPU | wall | peak RSS | CPU, file-puller's share | wall, file-puller's share |\n|---|---|---|---|---|---|")
    seen = {name: [] for name in programs(port)}
    for _ in range(rounds):
        for name, command in programs(port).items():
            # What an earlier run left to be written is not for this one to wait for.
            os.sync()
            seen[name].append(run(command(pathlib.Path(tempfile.mkdtemp(dir=scratch)) / "full")))
    median = {name: {key: statistics.median(one[key] for one in runs) for key in runs[0]} for name, runs in seen.items()}
    ours = median["file-puller"]
    for name, its in median.items():
        shares = f"{ours['cpu'] / its['cpu']:.2f} | {ours['wall'] / its['wall']:.2f}"
        print(f"| {name} | {its['cpu']:.2f} s | {its['wall']:.2f} s | {its['kib'] / 1024:.1f} MiB | {shares} |")
    rclone = next(name for name in median if name.startswith("rclone"))
    peers = lambda key, scale=1: {name: its[key] / scale for name, its in median.items() if name != "file-puller"}
    record("full sync of 10,000 files", "CPU", "s", ours["cpu"], peers("cpu"), rclone, 0.28)
    record("full sync of 10,000 files", "wall", "s", ours["wall"], peers("wall"), rclone, 0.42)
    record("full sync of 10,000 files", "peak RSS", "MiB", ours["kib"] / 1024, peers("kib", 1024))


def archive(port, scratch, rounds, root):
    """The same tree in one piece, beside what a script would do: curl, tar, and a sync of the disk, as the puller has it."""
    print("\n| archive of the same tree | CPU | wall | peak RSS | CPU, file-puller's share | wall, file-puller's share |\n|---|---|---|---|---|---|")
    for name, flags, extract in [("site.tar", "", "-x"), ("site.tar.gz", "--gzip", "-xz")]:
        packed = scratch / name
        subprocess.run(["tar", "-c", *flags.split(), "-f", packed, "-C", root, "--exclude", "./manifest.json", "."], check=True)
        os.link(packed, root / name)
        url = f"http://127.0.0.1:{port}/{name}"
        script = f'mkdir "$0" && curl -sS "{url}" | tar {extract} -C "$0" && sync -f "$0"'
        commands = {
            "file-puller": lambda to: [PULLER, "--once", "--source", url, "--volume", to],
            f"curl, tar {extract}, sync": lambda to: ["sh", "-c", script, to],
        }
        seen = {command: [] for command in commands}
        for _ in range(rounds):
            for command, make in commands.items():
                os.sync()
                seen[command].append(run(make(pathlib.Path(tempfile.mkdtemp(dir=scratch)) / "archive")))
        (root / name).unlink()
        median = {command: {key: statistics.median(one[key] for one in runs) for key in runs[0]} for command, runs in seen.items()}
        ours, (peer, its) = median["file-puller"], list(median.items())[1]
        for command, found in median.items():
            shares = f"{ours['cpu'] / found['cpu']:.2f} | {ours['wall'] / found['wall']:.2f}"
            print(f"| {name}: {command} | {found['cpu']:.2f} s | {found['wall']:.2f} s | {found['kib'] / 1024:.1f} MiB | {shares} |")
        record(f"{name} of 10,000 files", "CPU", "s", ours["cpu"], {peer: its["cpu"]}, peer)
        record(f"{name} of 10,000 files", "wall", "s", ours["wall"], {peer: its["wall"]}, peer, 0.8)
        record(f"{name} of 10,000 files", "peak RSS", "MiB", ours["kib"] / 1024)


def written(volume):
    """Everything on the volume with the time of its last change."""
    return {path: path.lstat().st_ctime_ns for path in [volume, *volume.rglob("*")]}


def poll(port, scratch, rounds):
    volume = scratch / "poll"
    puller = Puller(f"http://127.0.0.1:{port}/manifest.json", volume)
    # The next answer comes when all is done that waited for the first sync's: the copy that the next release begins with.
    assert puller.sync()[0]["result"] == "unchanged"
    before, polls, costs, walls = written(volume), 200, [], []
    for _ in range(rounds):
        began = puller.cpu()
        for _ in range(polls):
            answer, took = puller.sync()
            assert answer["result"] == "unchanged", answer
            walls.append(took)
        costs.append((puller.cpu() - began) / polls)
    wrote = "nothing" if written(volume) == before else "SOMETHING"
    print(f"\n| no change | {polls * rounds} polls |\n|---|---|")
    print(f"| CPU per poll, answer to POST /sync included | {statistics.median(costs) * 1000:.2f} ms |")
    print(f"| wall per poll | {statistics.median(walls) * 1000:.2f} ms |\n| written on the volume | {wrote} |")
    print(f"| peak RSS, first sync included | {puller.peak_kib() / 1024:.1f} MiB |")
    record("no change, 10,000 files", "CPU of a poll", "ms", statistics.median(costs) * 1000, goal=0.2)
    puller.stop()


def idle(port, scratch):
    """With the Pod's period of 2 s and nothing new."""
    puller = Puller(f"http://127.0.0.1:{port}/manifest.json", scratch / "idle", period="2s")
    puller.sync()
    # The copy that the next release begins with is made by then.
    puller.sync()
    began, cpu, seconds = time.monotonic(), puller.cpu(), 20
    time.sleep(seconds)
    share = (puller.cpu() - cpu) / (time.monotonic() - began) * 100
    print(f"\n| idle, a period of 2 s | {seconds} s |\n|---|---|\n| share of a core | {share:.2f} % |")
    record("idle, a period of 2 s", "share of a core", "%", share, goal=0.3)
    puller.stop()


def change(port, scratch, times, root, neighbour=0):
    """A neighbour has so many MB on the same file system that are not written yet."""
    volume = scratch / f"change-{neighbour}"
    puller = Puller(f"http://127.0.0.1:{port}/manifest.json", volume)
    file, walls, costs = root / "d042" / "f004242.bin", [], []
    megabyte = os.urandom(1_000_000)
    first = puller.phases()
    for number in range(times):
        file.write_bytes(f"change {number} {neighbour}\n".encode() * 400)
        describe(root)
        # nginx's ETag is made of whole seconds and the size: two changes within a second would look like none.
        os.utime(root / "manifest.json", (moment := time.time() + 2 * number, moment))
        # A new file: one that is overwritten is sent to the disk by ext4 itself when it is closed.
        other = scratch / f"neighbour-{number}"
        with open(other, "wb") as out:
            for _ in range(neighbour):
                out.write(megabyte)
        began = puller.cpu()
        answer, took = puller.sync()
        assert answer["result"] == "published" and answer["fetched_files"] == 1, answer
        walls.append(took)
        costs.append(puller.cpu() - began)
        other.unlink()
    walls.sort()
    beside = f", {neighbour} MB of a neighbour's not written yet" if neighbour else ""
    print(f"\n| one file of 10,000 changed{beside} | {len(walls)} times |\n|---|---|")
    print(f"| POST /sync to published, median | {statistics.median(walls) * 1000:.0f} ms |")
    print(f"| p99 | {walls[int(len(walls) * 0.99) - 1] * 1000:.0f} ms |\n| slowest | {walls[-1] * 1000:.0f} ms |")
    spent = {phase: (sum - first.get(phase, 0)) / len(walls) for phase, sum in puller.phases().items()}
    print("| of it, mean | " + ", ".join(f"{phase} {seconds * 1000:.0f} ms" for phase, seconds in spent.items()) + " |")
    print(f"| CPU, mean | {statistics.mean(costs) * 1000:.0f} ms |\n| peak RSS | {puller.peak_kib() / 1024:.1f} MiB |")
    case = "one file of 10,000 changed" + beside
    record(case, "request to published, median", "ms", statistics.median(walls) * 1000)
    record(case, "request to published, p99", "ms", walls[int(len(walls) * 0.99) - 1] * 1000, goal=None if neighbour else 35)
    record(case, "CPU until the answer", "ms", statistics.mean(costs) * 1000)
    puller.stop()


class Repository:
    """A repository of so many files, and what git-sync does to follow it, by hand."""

    def __init__(self, path, files):
        self.path = path
        self.git("init", "--quiet", "--initial-branch=main", str(path), cwd="/")
        make_files(path, files)
        self.commit()

    def git(self, *arguments, cwd=None):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "gc.auto=0"]
        done = subprocess.run(["git", *identity, *arguments], cwd=cwd or self.path, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"git {arguments}: {done.stderr}")

    def commit(self):
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "change")


def git(scratch, rounds):
    from server import GitServer

    base = scratch / "git"
    base.mkdir()
    server = GitServer(str(base))
    plain = lambda path: server.url(path).removeprefix("git+")
    repository = Repository(base / "site", 2_000)
    puller = Puller(server.url("site/.git"), scratch / "git-volume")
    assert puller.sync()[0]["result"] == "unchanged"
    polls, before = 100, puller.cpu()
    for _ in range(polls):
        assert puller.sync()[0]["result"] == "unchanged"
    poll = (puller.cpu() - before) / polls * 1000
    # What git-sync runs: a fetch of one commit, a worktree, a link to it.
    clone = scratch / "clone"
    repository.git("clone", "--quiet", "--depth", "1", plain("site/.git"), str(clone), cwd=scratch)
    script = (
        'git fetch --quiet --depth 1 origin main && git worktree add --quiet --detach --no-checkout "$0" FETCH_HEAD && '
        'git -C "$0" reset --quiet --hard && sync -f "$0" && ln -s "$0" "$0.link" && mv -T "$0.link" ../current'
    )
    walls, costs, theirs = [], [], []
    for number in range(4 * rounds):
        (base / "site" / "d007" / "f000700.bin").write_bytes(f"change {number}\n".encode() * 500)
        repository.commit()
        began = puller.cpu()
        answer, took = puller.sync()
        assert answer["result"] == "published", answer
        walls.append(took)
        costs.append(puller.cpu() - began)
        began = time.monotonic()
        subprocess.run(["sh", "-c", script, str(scratch / f"worktree-{number}")], cwd=clone, check=True)
        theirs.append(time.monotonic() - began)
        # As git-sync does. Its time is not counted.
        if number:
            repository.git("worktree", "remove", "--force", str(scratch / f"worktree-{number - 1}"), cwd=clone)
    peer = "git fetch, worktree, reset, sync"
    print(f"\n| git, 2,000 files | |\n|---|---|\n| no change, CPU | {poll:.2f} ms |")
    print(f"| one file changed, POST /sync to published: median of {len(walls)} | {statistics.median(walls) * 1000:.0f} ms |")
    print(f"| slowest | {max(walls) * 1000:.0f} ms |\n| CPU, mean | {statistics.mean(costs) * 1000:.0f} ms |")
    print(f"| {peer}: median | {statistics.median(theirs) * 1000:.0f} ms |\n| peak RSS | {puller.peak_kib() / 1024:.1f} MiB |")
    record("git: no change", "CPU of a poll", "ms", poll, goal=3)
    record("git: one of 2,000 files changed", "request to published, median", "ms", statistics.median(walls) * 1000,
           {peer: statistics.median(theirs) * 1000}, goal=150)
    puller.stop()

    # 10,000 files, and a history of 200 MB that a shallow fetch has no use for.
    large = Repository(base / "large", 10_000)
    chance = random.Random(5)
    for _ in range(20):
        for _ in range(100):
            number = chance.randrange(10_000)
            (base / "large" / f"d{number // 100:03}" / f"f{number:06}.bin").write_bytes(chance.randbytes(50_000))
        large.commit()
    history = sum(file.stat().st_size for file in (base / "large" / ".git" / "objects").rglob("*") if file.is_file())
    puller = Puller(server.url("large/.git"), scratch / "git-large")
    assert puller.sync()[0]["result"] == "unchanged"
    first = puller.peak_kib() / 1024
    for number in range(3):
        (base / "large" / "d007" / "f000700.bin").write_bytes(f"change {number}\n".encode() * 500)
        large.commit()
        assert puller.sync()[0]["result"] == "published"
    peak = puller.peak_kib() / 1024
    print(f"| 10,000 files, {history / 1e6:.0f} MB of objects: peak RSS of the first sync, of three changes more | {first:.1f}, {peak:.1f} MiB |")
    record("git: 10,000 files and 200 MB of history", "peak RSS", "MiB", peak, goal=32)
    puller.stop()
    server.close()


def growth(scratch, rounds, sizes):
    print("\n| files | runs | full sync, CPU | wall | peak RSS |\n|---|---|---|---|---|")
    seen = {}
    for files in sizes:
        root = scratch / f"grown-{files}"
        make_tree(root, files)
        # A hundred thousand files are a gigabyte to make and to pull: once has to do.
        runs = []
        with nginx(root) as port:
            for number in range(rounds if files <= 10_000 else 1):
                os.sync()
                command = programs(port)["file-puller"](scratch / f"volume-{files}-{number}")
                runs.append(run([*command, "--max-files", str(files), "--max-manifest-size", "64MiB"]))
        cpu, wall, kib = (statistics.median(one[key] for one in runs) for key in ["cpu", "wall", "kib"])
        print(f"| {files:,} | {len(runs)} | {cpu:.2f} s | {wall:.2f} s | {kib / 1024:.1f} MiB |")
        seen[files] = cpu
        record(f"growth: {files:,} files", "CPU", "s", cpu)
        record(f"growth: {files:,} files", "peak RSS", "MiB", kib / 1024, goal=32 if files == 100_000 else None)
    if {10_000, 100_000} <= seen.keys():
        record("100,000 files beside 10,000", "CPU, times", "×", seen[100_000] / seen[10_000], goal=11)


def machine(scratch):
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())[1]
    version = lambda command: subprocess.run(command, capture_output=True, text=True).stdout.split("\n")[0]
    disk = subprocess.run(["stat", "-f", "-c", "%T", scratch], capture_output=True, text=True).stdout.strip()
    print(f"{cpu}, {os.cpu_count()} cores, Linux {os.uname().release}, {disk}, load {os.getloadavg()[0]:.1f};", end=" ")
    nginx_version = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr.strip().rsplit("/", 1)[-1]
    print(f"{version([PULLER, '--version'])}, nginx {nginx_version}, {version(['rclone', 'version'])}, {version(['wget', '--version'])}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--sizes", default="100,1000,10000,100000", help="files, for growth")
    parser.add_argument("--at", metavar="DIR", help="where content and volumes are, instead of the system's temporary directory")
    parser.add_argument("--json", metavar="FILE", type=pathlib.Path, help="where to write the figures, besides printing them")
    parser.add_argument("--install", action="store_true", help="install what is missing, as root on Debian")
    network.add_argument(parser)
    arguments = parser.parse_args()
    if arguments.install:
        subprocess.run(["apt-get", "install", "--no-install-recommends", "-qq", "nginx-light", "rclone", "wget", "curl", "git", "iproute2", "util-linux"], check=True)
    if not PULLER.exists():
        sys.exit("no release build: cargo build --release -p file-puller")
    network.enter(arguments)
    parts = arguments.only.split(",")
    # Each table is shown when it is done, also in a file.
    sys.stdout.reconfigure(line_buffering=True)
    with tempfile.TemporaryDirectory(dir=arguments.at) as directory:
        # nginx's worker is another user.
        os.chmod(directory, 0o755)
        scratch = pathlib.Path(directory)
        machine(scratch)
        root = scratch / "site"
        if set(parts) & {"full", "archive", "poll", "idle", "change", "busy"}:
            make_tree(root, 10_000)
            with nginx(root) as port:
                if "full" in parts:
                    full(port, scratch, arguments.rounds)
                if "archive" in parts:
                    archive(port, scratch, arguments.rounds, root)
                if "poll" in parts:
                    poll(port, scratch, arguments.rounds)
                if "idle" in parts:
                    idle(port, scratch)
                if "change" in parts:
                    change(port, scratch, 20 * arguments.rounds, root)
                if "busy" in parts:
                    change(port, scratch, 2 * arguments.rounds, root, neighbour=500)
        if "git" in parts:
            git(scratch, arguments.rounds)
        if "growth" in parts:
            growth(scratch, arguments.rounds, [int(files) for files in arguments.sizes.split(",")])

    if arguments.json:
        REPORT.write(arguments.json, arguments.rounds)


if __name__ == "__main__":
    main()
