#!/usr/bin/env python3
"""Measures log-agent, on this machine, next to rsyslog's imfile.

    benches/log-agent.py [--megabytes 300] [--rounds 3] [--only NAME,…] [--json FILE]

Needs a release build: `cargo build --release -p log-agent --bin log-agent --example counting_receiver`; rsyslogd (Debian's package) is left out
where it is missing. A run ships one file of JSON access-log lines of about 300 bytes, from an empty state directory to the last
confirmation. CPU is user and system time of the whole process, from its start to its end, as the kernel counts it (wait4); RSS is the
peak. Records are counted by the receiver, and every run has to have them all. What is printed is the median of the rounds.
"""

import argparse
import contextlib
import datetime
import http.client
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from report import Report

REPO = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target"))
BINARIES = pathlib.Path(os.environ.get("BINARIES", TARGET / "release"))
AGENT = BINARIES / "log-agent"
RECEIVER = TARGET / "release/examples/counting_receiver"
TICK = os.sysconf("SC_CLK_TCK")

# name: sink, flags
SHIPPING = {
    "ndjson": ("ndjson+http://{addr}/", ["--parse", "json"]),
    "otlp": ("otlp+http://{addr}", ["--parse", "json"]),
    "forward": ("forward://{addr}", ["--parse", "json"]),
    "raw to file": ("raw+file:{dir}/out", ["--parse", "raw"]),
    "ndjson gzip": ("ndjson+http://{addr}/", ["--parse", "json", "--compression", "gzip"]),
    "ndjson zstd": ("ndjson+http://{addr}/", ["--parse", "json", "--compression", "zstd"]),
    "otlp gzip": ("otlp+http://{addr}", ["--parse", "json", "--compression", "gzip"]),
    "forward gzip": ("forward://{addr}", ["--parse", "json", "--compression", "gzip"]),
}
# What a copy costs that looks at nothing: a process that is given the log and the name of the copy.
COPY = """
import os, sys
log, out = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
portion = memoryview(bytearray(128 * 1024))
read, synced = 0, 0
while got := os.readv(log, [portion]):
    os.write(out, portion[:got])
    read += got
    if read - synced >= 512 * 1024:
        os.fdatasync(out)
        synced = read
os.fdatasync(out)
"""
COPIES = {"cp": ["cp"], "read and write": [sys.executable, "-S", "-c", COPY]}
EXTRAS = ["rsyslog", *COPIES, "livez", "latency", "idle", "growth"]

RSYSLOG = """
global(workDirectory="{dir}/work")
module(load="imfile" mode="inotify")
main_queue(queue.type="LinkedList")
template(name="raw" type="string" string="%msg%\\n")
input(type="imfile" File="{log}" Tag="a" readMode="0" ruleset="out")
ruleset(name="out") {{ action(type="omfile" file="{dir}/out" template="raw" ioBufferSize="64k" flushOnTXEnd="off") }}
"""


class Receiver:
    """counting_receiver, and the last thing it said."""

    def __init__(self, *args):
        self.process = subprocess.Popen([RECEIVER, *args], stdout=subprocess.PIPE, text=True)
        self.addr = self.process.stdout.readline().strip()
        self.lines = []
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            self.lines.append(line.split())

    def close(self):
        self.process.kill()
        self.process.wait()


def access_log(path, megabytes):
    """Lines as web-server writes them, each with values of its own."""
    begin = datetime.datetime(2026, 11, 23, 18, 0, 0)
    size, number = 0, 0
    with open(path, "w", encoding="ascii") as out:
        while size < megabytes * 1_000_000:
            lines = []
            for _ in range(10_000):
                at = begin + datetime.timedelta(microseconds=number * 997)
                lines.append(
                    f'{{"timestamp":"{at.isoformat(timespec="microseconds")}Z","client.address":"10.0.{number % 200}.{number % 251}",'
                    f'"http.request.method":"GET","url.path":"/docs/page-{number * 7919 % 10007}.html","url.query":"",'
                    f'"http.response.status_code":{(200, 200, 200, 304, 404)[number % 5]},"http.response.body.size":{number * 31 % 65536},'
                    f'"http.server.request.duration":0.{number * 17 % 10000:06d},"user_agent.original":"Mozilla/5.0","request.id":"{number * 2654435761 % 2**64:016x}"}}\n'
                )
                number += 1
            text = "".join(lines)
            out.write(text)
            size += len(text)
    return number, size


def finished(process):
    """Waits for a process of ours: CPU seconds, peak RSS in MiB, exit code."""
    rss = 0.0
    while True:
        # wait4 has a maximum, too, but that of a child begins with what its parent had before exec.
        with contextlib.suppress(OSError):
            rss = max(rss, rss_of(process.pid, "VmHWM"))
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage.ru_utime + usage.ru_stime, rss, process.returncode
        time.sleep(0.01)


def agent(directory, include, sink, *flags):
    shutil.rmtree(directory / "state", ignore_errors=True)
    command = [AGENT, "--include", include, "--state-dir", directory / "state", "--sink", sink, "--admin-addr", "127.0.0.1:0", *flags]
    return subprocess.Popen(command, stderr=open(directory / "agent.err", "wb"))


def ship(name, directory, log, records):
    sink, flags = SHIPPING[name]
    receiver = Receiver("forward" if sink.startswith("forward") else "http")
    out = directory / "out"
    out.unlink(missing_ok=True)
    try:
        began = time.time()
        process = agent(directory, log, sink.format(addr=receiver.addr, dir=directory), "--exit-at-eof", *flags)
        cpu, rss, code = finished(process)
        if code != 0:
            sys.exit((directory / "agent.err").read_text())
        if out.exists():
            with open(out, "rb") as file:
                got = sum(1 for _ in file)
            wire, wall = out.stat().st_size, time.time() - began
        else:
            time.sleep(0.1)
            got, wire, last = receiver.lines[-1]
            wire, wall = int(wire), float(last) - began
        if int(got) != records:
            sys.exit(f"{name}: {got} of {records} records")
        return cpu, wall, rss, wire / 1e6
    finally:
        receiver.close()


def rsyslog(directory, log, size):
    shutil.rmtree(directory / "work", ignore_errors=True)
    (directory / "work").mkdir()
    out, config = directory / "out", directory / "rsyslog.conf"
    out.unlink(missing_ok=True)
    config.write_text(RSYSLOG.format(dir=directory, log=log))
    began = time.time()
    process = subprocess.Popen(["rsyslogd", "-n", "-f", config, "-i", directory / "rsyslog.pid"], stderr=subprocess.DEVNULL)
    while not out.exists() or out.stat().st_size < size * 0.999:
        time.sleep(0.02)
        if time.time() - began > 120:
            break
    wall = time.time() - began
    process.send_signal(signal.SIGTERM)
    cpu, rss, _ = finished(process)
    return cpu, wall, rss, out.stat().st_size / 1e6


def copy(name, directory, log, size):
    out = directory / "out"
    out.unlink(missing_ok=True)
    began = time.time()
    cpu, rss, code = finished(subprocess.Popen([*COPIES[name], log, out]))
    if code != 0 or out.stat().st_size != size:
        sys.exit(f"{name}: {code}")
    return cpu, time.time() - began, rss, size / 1e6


def cpu_of(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def rss_of(pid, field="VmRSS"):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def latency(directory, seconds=10, rate=1000):
    """From right before the write of a line to the receiver's having it, while a line is written every millisecond."""
    log = directory / "latency.log"
    log.write_bytes(b"")
    receiver = Receiver("http", "latency")
    process = agent(directory, log, f"ndjson+http://{receiver.addr}/", "--parse", "json")
    time.sleep(1)
    padding = "x" * 230
    with open(log, "ab", buffering=0) as out:
        begin = time.monotonic()
        for number in range(seconds * rate):
            wait = begin + number / rate - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            out.write(f'{{"sent":{time.time_ns() // 1000},"number":{number},"padding":"{padding}"}}\n'.encode())
    time.sleep(1)
    cpu = cpu_of(process.pid)
    process.terminate()
    finished(process)
    receiver.close()
    times = sorted(int(line[0]) / 1000 for line in receiver.lines)
    if len(times) != seconds * rate:
        sys.exit(f"latency: {len(times)} of {seconds * rate} records")
    at = lambda share: times[int(len(times) * share)]
    print(f"latency at {rate} lines/s: p50 {at(.5):.2f} ms, p90 {at(.9):.2f} ms, p99 {at(.99):.2f} ms, max {times[-1]:.2f} ms; CPU {cpu / seconds * 100:.1f} %")


class Prober:
    """Asks a server for /livez every 5 ms, and notes how long each answer took."""

    def __init__(self, addr):
        self.addr, self.took, self.ended = addr, [], False
        self.thread = threading.Thread(target=self.ask, daemon=True)
        self.thread.start()

    def ask(self):
        connection = http.client.HTTPConnection(self.addr)
        while not self.ended:
            began = time.monotonic()
            try:
                connection.request("GET", "/livez")
                connection.getresponse().read()
            except OSError:
                return
            self.took.append(time.monotonic() - began)
            time.sleep(0.005)

    def p99(self):
        self.ended = True
        self.thread.join()
        return sorted(self.took)[int(len(self.took) * 0.99)] * 1000


def listening(path):
    """The address of the admin listener, from a program's log."""
    for _ in range(500):
        for line in path.read_text().splitlines():
            event = json.loads(line)
            if event.get("listener") == "admin":
                return event["addr"]
        time.sleep(0.01)
    sys.exit(f"no admin listener in {path}")


def livez(directory, log, records, report):
    """/livez while the log is shipped, beside an idle server of the same kind on the same two cores."""
    receiver = Receiver("http")
    web = [BINARIES / "web-server", "--root", directory, "--listen", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0", "--log-format", "json"]
    with open(directory / "web.err", "wb") as err:
        server = subprocess.Popen(web, stdout=subprocess.DEVNULL, stderr=err)
    sink, flags = SHIPPING["ndjson"]
    process = agent(directory, log, sink.format(addr=receiver.addr), *flags, "--log-format", "json")
    probers = [Prober(listening(directory / name)) for name in ["agent.err", "web.err"]]
    while not receiver.lines or int(receiver.lines[-1][0]) < records:
        time.sleep(0.05)
    ours, theirs = (prober.p99() for prober in probers)
    for one in [process, server]:
        one.terminate()
        finished(one)
    receiver.close()
    print(f"/livez p99 while shipping: {ours:.2f} ms; an idle web-server's meanwhile: {theirs:.2f} ms; {len(probers[0].took)} requests")
    report.record("/livez while shipping", "p99", "ms", ours, {"idle web-server": theirs}, "idle web-server", goal=2)


def idle(directory, files, seconds=20):
    """Files that were shipped and are quiet now."""
    logs = directory / f"idle{files}"
    logs.mkdir()
    for number in range(files):
        (logs / f"{number}.log").write_text("one line\n")
    receiver = Receiver("http")
    process = agent(directory, logs / "*.log", f"ndjson+http://{receiver.addr}/")
    time.sleep(3)
    before = cpu_of(process.pid)
    time.sleep(seconds)
    cpu, rss = cpu_of(process.pid) - before, rss_of(process.pid)
    # And what one line in each costs, all at once.
    before = cpu_of(process.pid)
    for number in range(files):
        with open(logs / f"{number}.log", "a", encoding="ascii") as out:
            out.write("another\n")
    time.sleep(2)
    burst = cpu_of(process.pid) - before
    process.terminate()
    finished(process)
    receiver.close()
    print(f"idle on {files} files: CPU {cpu / seconds * 100:.2f} %, RSS {rss:.1f} MiB; a line in each: {burst * 1000:.0f} ms CPU")
    return cpu / seconds * 100, rss


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join([*SHIPPING, *EXTRAS]))
    parser.add_argument("--json", metavar="FILE", type=pathlib.Path, help="where to write the figures, besides printing them")
    args = parser.parse_args()
    only = args.only.split(",")
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        log = directory / "access.log"
        records, size = access_log(log, args.megabytes)
        print(f"{records} lines, {size / 1e6:.0f} MB, {size / records:.0f} bytes a line; load {os.getloadavg()[0]:.1f}")
        print(f"{'':14} {'CPU s':>7} {'wall s':>7} {'RSS MiB':>8} {'out MB':>7}")
        names = [name for name in [*SHIPPING, *COPIES, "rsyslog"] if name in only]
        results = {name: [] for name in names}
        for _ in range(args.rounds):
            for name in names:
                if name in SHIPPING:
                    results[name].append(ship(name, directory, log, records))
                elif name in COPIES:
                    results[name].append(copy(name, directory, log, size))
                elif shutil.which("rsyslogd"):
                    results[name].append(rsyslog(directory, log, size))
        for name, rounds in results.items():
            if rounds:
                cpu, wall, rss, wire = (statistics.median(column) for column in zip(*rounds))
                print(f"{name:14} {cpu:7.2f} {wall:7.2f} {rss:8.1f} {wire:7.0f}", flush=True)
        report = Report()
        cpu = {name: statistics.median(one[0] for one in rounds) for name, rounds in results.items() if rounds}
        peers = {name: cpu[name] for name in ["cp", "rsyslog"] if name in cpu}
        for name in SHIPPING.keys() & cpu.keys():
            report.record(f"{name}, {args.megabytes} MB", "CPU", "s", cpu[name], peers, "cp")
            rss = statistics.median(one[2] for one in results[name])
            report.record(f"{name}, {args.megabytes} MB", "peak RSS", "MiB", rss)
        if "livez" in only:
            livez(directory, log, records, report)
        log.unlink()
        (directory / "out").unlink(missing_ok=True)
        if "latency" in only:
            latency(directory)
        if "idle" in only:
            share, rss = idle(directory, 100)
            report.record("idle on 100 files", "CPU", "% of a core", share)
            report.record("idle on 100 files", "RSS", "MiB", rss, goal=6)
        if "growth" in only:
            for files in (1, 10, 1000):
                idle(directory, files, seconds=10)
        if args.json:
            report.write(args.json, args.rounds)


if __name__ == "__main__":
    main()
