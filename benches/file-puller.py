#!/usr/bin/env python3
"""Measures file-puller against rclone and wget, side by side, on this machine.

    benches/file-puller.py [--rounds 5] [--only NAME,…] [--sizes 100,…] [--at DIR] [--install]

Needs nginx, rclone and wget (Debian's packages; --install gets them) and a release build of file-puller. The content is 10,000
files of 0.5 to 20 KB in 100 directories, served by nginx on loopback. A round runs each program in turn into an empty directory,
so that what else the machine does hits all of them; what is printed is the median of the rounds and its ratio to file-puller's.
Nothing is removed before the end: ext4 without a journal does not use an inode again for minutes, and searches past all that were
removed just now for each file that is made, so that one run would pay for clearing up after another.

CPU is user and system time of the whole process with its threads: from wait4(2) for programs that end, from /proc/<pid>/stat for
the puller that goes on running.
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

REPO = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target"))
PULLER = TARGET / "release" / "file-puller"
TICK = os.sysconf("SC_CLK_TCK")
PARTS = ["full", "poll", "change", "busy", "growth"]

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
    """The same bytes at every run: 0.5 to 20 KB each, a hundred files to a directory."""
    chance = random.Random(4)
    for number in range(files):
        directory = root / f"d{number // 100:03}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number:06}.bin").write_bytes(chance.randbytes(chance.randrange(500, 20_000)))
    describe(root)


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

    def __init__(self, port, volume):
        command = [PULLER, "--source", f"http://127.0.0.1:{port}/manifest.json", "--volume", volume]
        command += ["--period", "1h", "--keep", "1", "--keep-for", "0s", "--admin-addr", "127.0.0.1:0", "--log-format", "json"]
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


def written(volume):
    """Everything on the volume with the time of its last change."""
    return {path: path.lstat().st_ctime_ns for path in [volume, *volume.rglob("*")]}


def poll(port, scratch, rounds):
    volume = scratch / "poll"
    puller = Puller(port, volume)
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
    puller.stop()


def change(port, scratch, times, root, neighbour=0):
    """A neighbour has so many MB on the same file system that are not written yet."""
    volume = scratch / f"change-{neighbour}"
    puller = Puller(port, volume)
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
    puller.stop()


def growth(scratch, rounds, sizes):
    print("\n| files | runs | full sync, CPU | wall | peak RSS |\n|---|---|---|---|---|")
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
    parser.add_argument("--install", action="store_true", help="install what is missing, as root on Debian")
    arguments = parser.parse_args()
    if arguments.install:
        subprocess.run(["apt-get", "install", "--no-install-recommends", "-qq", "nginx-light", "rclone", "wget"], check=True)
    if not PULLER.exists():
        sys.exit("no release build: cargo build --release -p file-puller")
    parts = arguments.only.split(",")
    # Each table is shown when it is done, also in a file.
    sys.stdout.reconfigure(line_buffering=True)
    with tempfile.TemporaryDirectory(dir=arguments.at) as directory:
        # nginx's worker is another user.
        os.chmod(directory, 0o755)
        scratch = pathlib.Path(directory)
        machine(scratch)
        root = scratch / "site"
        if set(parts) & {"full", "poll", "change", "busy"}:
            make_tree(root, 10_000)
            with nginx(root) as port:
                if "full" in parts:
                    full(port, scratch, arguments.rounds)
                if "poll" in parts:
                    poll(port, scratch, arguments.rounds)
                if "change" in parts:
                    change(port, scratch, 20 * arguments.rounds, root)
                if "busy" in parts:
                    change(port, scratch, 2 * arguments.rounds, root, neighbour=500)
        if "growth" in parts:
            growth(scratch, arguments.rounds, [int(files) for files in arguments.sizes.split(",")])


if __name__ == "__main__":
    main()
