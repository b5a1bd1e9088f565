#!/usr/bin/env python3
"""Measures web-server against nginx and static-web-server, side by side, on this machine.

    benches/web-server.py [--rounds 5] [--seconds 3] [--only NAME,…] [--install] [--network own|shared] [--save]

Needs nginx and wrk (Debian's packages; --install gets them, and static-web-server by `cargo install`) and a release build of
web-server. Servers run on core 0 and wrk on core 1. Every server writes an access log. A round asks each server in turn, so that
what else the machine does hits all of them; what is printed is the median of the rounds, and its ratio to nginx's. nginx runs
three times: as Debian configures its log, one write per line; with a log buffer, which loses lines in a crash; and without a log.

All of it is in a network namespace of its own (--network own), so that the packet filter's rules that Docker and others leave on a
machine's loopback are not measured with each request. That needs root, or a kernel that lets users have namespaces.

The loads whose name begins with `plain-` are of a directory that may be edited at any moment; nginx has no cache of open files then,
because that would serve what was there before. What sendfile saves is the difference between `256k` and `plain-256k`, `1m` and
`plain-1m`: web-server reads what may change, and lets the kernel send what never does.

With --save the results are written to benches/results/web-server.json, from which the charts are drawn.

CPU is user and system time of all processes of a server, from /proc/<pid>/stat, divided by the requests that wrk saw answered.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import resource
import shutil
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
TICK = os.sysconf("SC_CLK_TCK")
SIZES = {"1k": 1 << 10, "16k": 16 << 10, "256k": 256 << 10, "1m": 1 << 20, "100m": 100 << 20}
PLAIN = "plain-"
LOADS = ["1k", "16k", "304", "256k", "1m", "100m", *(PLAIN + size for size in SIZES)]
EXTRAS = ["threads", "latency", "idle", "swap", "cold", "start"]
RESULTS = REPO / "benches" / "results" / "web-server.json"
# What is aimed at, as ratios to nginx: CPU at most, rate at least.
GOALS = {"1k": (0.70, 1.35), "16k": (0.88, 1.1), "304": (0.88, 1.15), "1m": (0.45, None), "100m": (1.0, None), "plain-1k": (1.0, None),
         "plain-16k": (1.0, None), "plain-1m": (1.0, None), "plain-100m": (1.0, None)}
FILE_CACHE = "open_file_cache max=20000 inactive=60s; open_file_cache_valid 30s; open_file_cache_errors on;"

NGINX = """
worker_processes 1; daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx.err; worker_rlimit_nofile 30000;
events {{ worker_connections 20000; }}
http {{
  include /etc/nginx/mime.types; sendfile on; tcp_nopush on; tcp_nodelay on;
  keepalive_timeout 120s; keepalive_requests 1000000000;
  {cache}
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  access_log {log};
  server {{ listen 127.0.0.1:{port} backlog=4096; root {root}; }}
}}
"""


class Server:
    """A server process with its children, pinned, and ended by process id."""

    def __init__(self, name, command, port, cores="0", log=None):
        self.name, self.port = name, port
        output = open(log, "ab") if log else subprocess.DEVNULL
        self.began = time.monotonic()
        self.process = subprocess.Popen(["taskset", "-c", cores, *command], stdout=output, stderr=subprocess.DEVNULL)
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                if self.process.poll() is not None or time.monotonic() - self.began > 10:
                    sys.exit(f"{name} does not come up: {' '.join(map(str, command))}")
                time.sleep(0.0005)
        self.listening = time.monotonic() - self.began

    def pids(self):
        pids, todo = [], [self.process.pid]
        while todo:
            pids.append(pid := todo.pop())
            todo += map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return pids

    def cpu(self):
        """Seconds, user and system, of all processes."""
        fields = [pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in self.pids()]
        return sum(int(f[11]) + int(f[12]) for f in fields) / TICK

    def rss(self, field="VmRSS"):
        """KiB, of all processes."""
        status = "".join(pathlib.Path(f"/proc/{pid}/status").read_text() for pid in self.pids())
        return sum(int(kib) for kib in re.findall(rf"{field}:\s+(\d+)", status))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def wrk(server, path, seconds, connections=64, headers=(), script=None):
    """Answered requests a second, how many, and latencies in milliseconds."""
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "30s"]
    command += [part for header in headers for part in ("-H", header)] + (["-s", str(script)] if script else [])
    text = subprocess.run([*command, f"http://127.0.0.1:{server.port}{path}"], capture_output=True, text=True, check=True).stdout
    if errors := re.search(r"Non-2xx.*|Socket errors.*", text):
        if "304" not in str(script) and "If-None-Match" not in str(headers):
            print(f"  {server.name}: {errors[0]}", file=sys.stderr)
    count = int(re.search(r"(\d+) requests in", text)[1])
    unit = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60000.0}
    number = lambda found: float(found[1]) * unit[found[2]]
    return {
        "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1]), "count": count,
        "p99": number(re.search(r"99%\s+([\d.]+)(us|ms|s|m)\b", text)),
        "max": number(re.search(r"Latency\s+\S+\s+\S+\s+([\d.]+)(us|ms|s|m)\b", text)),
    }


def header(server, path, name):
    with socket.create_connection(("127.0.0.1", server.port)) as stream:
        stream.sendall(f"HEAD {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        head = b"".join(iter(lambda: stream.recv(4096), b"")).decode()
    return re.search(rf"(?im)^{name}: (.*?)\r$", head)[1]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Bench:
    def __init__(self, arguments, scratch, cleanup):
        self.arguments, self.dir, self.cleanup = arguments, scratch, cleanup
        self.binary = pathlib.Path(os.environ.get("BINARIES", TARGET / "release")) / "web-server"
        self.report = Report()
        self.volume = scratch / "volume"
        release = self.volume / "releases" / "one"
        release.mkdir(parents=True)
        for name, size in SIZES.items():
            with open(release / name, "wb") as file:
                for _ in range(0, size, 1 << 10):
                    file.write(os.urandom(1 << 10))
        self.link("one")

    def link(self, release):
        temporary = self.volume / ".tmp"
        temporary.symlink_to(f"releases/{release}")
        temporary.rename(self.volume / "current")

    def start(self, name, command, port, **more):
        server = Server(name, command, port, **more)
        self.cleanup.callback(server.stop)
        return server

    def ours(self, name="web-server", *flags, cores="0", root="current", admin="127.0.0.1:0"):
        port = free_port()
        command = [self.binary, "--root", self.volume / root, "--listen", f"127.0.0.1:{port}", "--admin-addr", admin,
                   "--access-log", self.dir / f"{name}.log", "--max-connections", "20000", *flags]
        return self.start(name, command, port, cores=cores)

    def nginx(self, name="nginx", log="{home}/nginx.log combined", cache=FILE_CACHE):
        port = free_port()
        home = self.dir / f"{re.sub('[^a-z]+', '-', name)}-{port}"
        home.mkdir()
        (home / "conf").write_text(NGINX.format(dir=home, port=port, root=self.volume / "current", log=log.format(home=home), cache=cache))
        return self.start(name, ["nginx", "-c", home / "conf", "-e", home / "nginx.err"], port)

    def static_web_server(self):
        binary = shutil.which("static-web-server", path=f"{os.environ['PATH']}:{TARGET}/tools/bin")
        if not binary:
            print("static-web-server is not there: left out (--install)", file=sys.stderr)
            return []
        port = free_port()
        command = [binary, "--host", "127.0.0.1", "--port", str(port), "--root", self.volume / "current", "--log-level", "info",
                   "--log-remote-address", "true", "--threads-multiplier", "1"]
        return [self.start("static-web-server", command, port, log=self.dir / "sws.log")]

    def measure(self, servers, path, connections, per_server_headers=lambda _: (), script=None):
        rounds = {server.name: [] for server in servers}
        for _ in range(self.arguments.rounds):
            for server in servers:
                headers, before = per_server_headers(server), server.cpu()
                result = wrk(server, path, self.arguments.seconds, connections, headers, script)
                result["cpu"] = (server.cpu() - before) / max(result["count"], 1) * 1e6
                rounds[server.name].append(result)
        return {name: {key: statistics.median(r[key] for r in results) for key in results[0]} for name, results in rounds.items()}

    def table(self, load, connections, results):
        table(f"{load}, {connections} connections", results, "nginx")
        cpu, rate = GOALS.get(load, (None, None))
        for metric, unit, goal in (("cpu", "µs", cpu), ("rate", "requests/s", rate)):
            peers = {name: result[metric] for name, result in results.items() if name != "web-server"}
            self.report.record(load, metric, unit, results["web-server"][metric], peers, "nginx", goal)

    def plain(self, wanted):
        servers = [self.ours(root="releases/one"), self.nginx(cache=""),
                   self.nginx("nginx-buffered-log", "{home}/nginx.log combined buffer=64k flush=1s", cache="")]
        for load in wanted:
            size = load.removeprefix(PLAIN)
            connections = {"256k": 16, "1m": 16, "100m": 4}.get(size, 64)
            self.table(load, connections, self.measure(servers, f"/{size}", connections))
        for server in servers:
            server.stop()

    def loads(self, wanted):
        servers = [self.ours(), self.nginx(), self.nginx("nginx-buffered-log", "{home}/nginx.log combined buffer=64k flush=1s"),
                   self.nginx("nginx-no-log", "off"), *self.static_web_server()]
        for load in wanted:
            path, connections = f"/{'1k' if load == '304' else load}", {"256k": 16, "1m": 16, "100m": 4}.get(load, 64)
            tag = lambda server: [f"If-None-Match: {header(server, path, 'etag')}"] if server.name != "static-web-server" else [
                f"If-Modified-Since: {header(server, path, 'last-modified')}"]
            results = self.measure(servers, path, connections, tag if load == "304" else lambda _: ())
            self.table(load, connections, results)
        for server in servers:
            print(f"  peak memory of {server.name}: {server.rss('VmHWM')} KiB")
            server.stop()

    def paced(self, rate, connections=64):
        """A script for wrk: each connection waits between its requests, between nothing and twice the mean."""
        script = self.dir / "paced.lua"
        script.write_text(f"function delay() return math.random(0, {round(2 * 1000 * connections / rate)}) end\n")
        return script

    def threads(self):
        """On one core, as everything here: what threads cost, and not who gets in the way of wrk."""
        servers = [self.ours("one thread", "--threads", "1"), self.ours("two threads", "--threads", "2")]
        table("1k, threads", self.measure(servers, "/1k", 64), "one thread")

    def latency(self):
        """At half of what nginx can do."""
        ours, nginx = self.ours("web-server, half load"), self.nginx("nginx, half load")
        script = self.paced(wrk(nginx, "/1k", 2)["rate"] / 2)
        results = self.measure([ours, nginx], "/1k", 64, script=script)
        p99 = [result["p99"] for result in results.values()]
        self.report.record("half load", "p99", "ms", p99[0], {"nginx": p99[1]}, "nginx")
        for name, result in results.items():
            print(f"half load: {name}: {result['rate']:.0f} requests/s, p99 {result['p99']:.2f} ms, CPU {result['cpu']:.1f} µs")

    def idle(self, count=10_000):
        kept = []
        for server in (self.ours("web-server, idle"), self.nginx("nginx, idle")):
            wrk(server, "/1k", 1)
            before, streams = server.rss(), []
            for _ in range(count):
                stream = socket.create_connection(("127.0.0.1", server.port))
                stream.sendall(b"GET /1k HTTP/1.1\r\nHost: h\r\n\r\n")
                stream.recv(4096)
                streams.append(stream)
            kept.append((server.rss() - before) / count)
            print(f"idle: {server.name}: {kept[-1]:.2f} KiB for each of {count} keep-alive connections")
            for stream in streams:
                stream.close()
        self.report.record("idle", "memory", "KiB", kept[0], {"nginx": kept[1]}, goal=4)

    def swap(self, files=10_000):
        for name in ("many-a", "many-b"):
            for number in range(files):
                path = self.volume / "releases" / name / f"{number % 100}" / f"{number}.html"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(f"{name} {number}\n".encode() * 64)
        self.link("many-a")
        server = self.ours("web-server, swapping", cores="0")
        script = self.dir / "swap.lua"
        script.write_text("function delay() return 5 end\n")
        time.sleep(2)
        for label, swapping in (("no swaps", False), ("a swap each second", True)):
            load = subprocess.Popen([sys.executable, __file__, "--probe", f"{server.port}", "/1/1.html", "8"], stdout=subprocess.PIPE, text=True)
            for turn in range(8):
                if swapping:
                    self.link("many-b" if turn % 2 == 0 else "many-a")
                time.sleep(1)
            slowest = json.loads(load.communicate()[0])
            print(f"swap of {files} files: {label}: slowest of {slowest['count']} requests {slowest['max']:.2f} ms, p99 {slowest['p99']:.2f} ms, "
                  f"memory {server.rss()} KiB, peak {server.rss('VmHWM')} KiB")
            self.report.record("swap" if swapping else "no swap", "p99", "ms", slowest["p99"], goal=5 if swapping else None)
        self.link("one")

    def cold(self, size=1 << 30, seconds=8):
        """Beside a download of a file that the page cache lacks: what the disk does to other clients, and to the kubelet's probes."""
        file = self.volume / "releases" / "one" / "1g"
        with open(file, "wb") as out:
            for _ in range(0, size, 1 << 20):
                out.write(os.urandom(1 << 20))
            os.fsync(out.fileno())
        admin = free_port()
        server = self.ours("web-server, cold", admin=f"127.0.0.1:{admin}")
        # Until the release with that file is served.
        while header(server, "/1g", "content-length") != str(size):
            time.sleep(0.1)
        ports = {"1 KiB": (server.port, "/1k"), "/livez": (admin, "/livez")}
        probes = {what: subprocess.Popen([sys.executable, __file__, "--probe", f"{port}", path, f"{seconds}"], stdout=subprocess.PIPE, text=True)
                  for what, (port, path) in ports.items()}
        end, received, buffer = time.monotonic() + seconds, 0, bytearray(1 << 20)
        while time.monotonic() < end:
            with open(file, "rb") as pages:
                os.posix_fadvise(pages.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            with socket.create_connection(("127.0.0.1", server.port)) as stream:
                stream.sendall(b"GET /1g HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                while (count := stream.recv_into(buffer)) and time.monotonic() < end:
                    received += count
        for what, probe in probes.items():
            slowest = json.loads(probe.communicate()[0])
            print(f"cold: {what} beside {received / seconds / 1e6:.0f} MB/s of a file that is not in the page cache: p99 {slowest['p99']:.2f} ms, "
                  f"slowest of {slowest['count']} requests {slowest['max']:.2f} ms")
            self.report.record("cold", f"p99 of {what}", "ms", slowest["p99"], goal=20)
        server.stop()
        file.unlink()

    def begin(self):
        times, memory = [], []
        for _ in range(max(self.arguments.rounds, 5)):
            server = self.ours("web-server, started")
            times.append(server.listening * 1000)
            time.sleep(0.5)
            memory.append(server.rss())
            server.stop()
        print(f"start to listening: {statistics.median(times):.1f} ms (taskset's exec included); idle: {statistics.median(memory)} KiB; "
              f"binary: {self.binary.stat().st_size / (1 << 20):.2f} MiB")


def probe(port, path, seconds):
    """One connection, one request after another: a slow one shows, and nothing hides it."""
    times, end = [], time.monotonic() + seconds
    with socket.create_connection(("127.0.0.1", port)) as stream:
        while time.monotonic() < end:
            began = time.perf_counter()
            stream.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            stream.recv(65536)
            times.append((time.perf_counter() - began) * 1000)
            time.sleep(0.001)
    times.sort()
    print(json.dumps({"count": len(times), "max": times[-1], "p99": times[len(times) * 99 // 100]}))


def table(title, results, base):
    print(f"\n{title}\n  {'':22}{'CPU µs':>10}{'ratio':>8}{'requests/s':>13}{'ratio':>8}{'p99 ms':>9}")
    for name, result in results.items():
        # Nothing is answered to the end where a second is too short.
        cpu, rate = (result[key] / (results[base][key] or float("nan")) for key in ("cpu", "rate"))
        print(f"  {name:22}{result['cpu']:>10.1f}{cpu:>8.2f}{result['rate']:>13.1f}{rate:>8.2f}{result['p99']:>9.2f}", flush=True)


def install():
    subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", "nginx", "wrk", "iproute2", "util-linux"], check=True)
    subprocess.run(["cargo", "install", "static-web-server", "--no-default-features", "--root", TARGET / "tools"], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="how long wrk asks, each time")
    parser.add_argument("--only", default=",".join(LOADS + EXTRAS), help="comma-separated: %(default)s")
    parser.add_argument("--install", action="store_true", help="get nginx, wrk and static-web-server first")
    network.add_argument(parser)
    parser.add_argument("--built", action="store_true", help="measures the build that is there")
    parser.add_argument("--save", action="store_true", help=f"writes {RESULTS.relative_to(REPO)}")
    parser.add_argument("--probe", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.probe:
        return probe(int(arguments.probe[0]), arguments.probe[1], float(arguments.probe[2]))
    if arguments.install:
        install()
    if not arguments.built:
        subprocess.run(["cargo", "build", "--release", "--quiet", "--package", "web-server"], cwd=REPO, check=True)
    for tool in ("nginx", "wrk", "taskset"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is missing: --install gets it")
    network.enter(arguments, "--built")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    wanted = arguments.only.split(",")
    with contextlib.ExitStack() as cleanup:
        scratch = pathlib.Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        scratch.chmod(0o755)
        bench = Bench(arguments, scratch, cleanup)
        loads = [load for load in LOADS if load in wanted]
        if of_a_release := [load for load in loads if not load.startswith(PLAIN)]:
            bench.loads(of_a_release)
        if plain := [load for load in loads if load.startswith(PLAIN)]:
            bench.plain(plain)
        for name, extra in zip(EXTRAS, (bench.threads, bench.latency, bench.idle, bench.swap, bench.cold, bench.begin)):
            if name in wanted:
                extra()
        if arguments.save:
            bench.report.write(RESULTS, bench.arguments.rounds)


if __name__ == "__main__":
    main()
