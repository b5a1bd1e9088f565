"""Holds overlays/monitoring to a real Prometheus over a Pod of processes: every alert fires when its cause is made, and every
series of the dashboard exists. Called by test.sh, which checks the files themselves first.

    python deploy/monitoring/test.py BINARIES
"""

import http.server
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

OVERLAY = pathlib.Path(__file__).parent.parent / "kubernetes/overlays/monitoring"
DEADLINE = 60


def wait_for(what, condition):
    deadline = time.monotonic() + DEADLINE
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise SystemExit(f"test.py: not within {DEADLINE} s: {what}")
        time.sleep(0.1)


def get(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode(errors="replace")


class Program:
    """One of the Pod's programs, restarted on the addresses that it had first."""

    def __init__(self, binaries, name, ports, args, log):
        self.command = [str(binaries / name), *args, "--log-format", "json"]
        self.ports, self.log, self.addresses = ports, log, {}
        self.start()

    def start(self):
        command = list(self.command)
        for role, flag in self.ports.items():
            command += [flag, self.addresses.get(role, "127.0.0.1:0")]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        for role in self.ports:
            self.addresses[role] = wait_for(f"{command[0]} listens", lambda role=role: self.listening(role))

    def listening(self, role):
        if self.process.poll() is not None:
            raise SystemExit(f"test.py: {self.command[0]} ended: {self.log.read_text()}")
        for line in self.log.read_text().splitlines():
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("message") == "listening" and event.get("listener") == role:
                return event["addr"]
        return None

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Receiver(http.server.BaseHTTPRequestHandler):
    """A sink that can be told to fail."""

    protocol_version = "HTTP/1.1"
    failing = False

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(503 if Receiver.failing else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def quickened(rules, limit):
    """The rules with minutes as seconds, and the memory limit as this machine's processes can reach it."""
    rules = rules.replace("[10m]", "[15s]").replace("offset 10m", "offset 15s").replace("[15m]", "[60s]")
    rules = re.sub(r"for: \d+m", "for: 1s", rules)
    rules = rules.replace("file_puller_staleness_seconds > 300", "file_puller_staleness_seconds > 3")
    rules = rules.replace("log_agent_held_bytes > 0.5 * 128 * 1024 * 1024", "log_agent_held_bytes > 1000")
    return rules.replace("64 * 1024 * 1024", str(limit))


def main(binaries):
    binaries = pathlib.Path(binaries).absolute()
    with tempfile.TemporaryDirectory() as folder:
        running = []
        try:
            drive(binaries, pathlib.Path(folder), running)
        finally:
            for process in running:
                (process.process if isinstance(process, Program) else process).kill()


def drive(binaries, folder, running):
    content, volume, logs, state = (folder / name for name in ("content", "volume", "logs", "state"))
    for directory in (content, volume, logs, state):
        directory.mkdir()
    (content / "index.html").write_text("first")

    def program(name, ports, *args):
        started = Program(binaries, name, ports, list(args), folder / f"{len(running)}.log")
        running.append(started)
        return started

    receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    admin = {"admin": "--admin-addr"}
    serving = {"content": "--listen", **admin}
    manager = program("web-server", serving, "--manifest", "--root", str(content))
    source = f"http://{manager.addresses['content']}/manifest.json"
    puller = program(
        "file-puller", admin, "--source", source, "--volume", str(volume), "--period", "300ms", "--max-backoff", "300ms",
        "--require", "index.html",
    )  # fmt: skip
    server = program(
        "web-server", serving, "--root", str(volume / "current"), "--access-log", str(logs / "access.log"),
        "--cache-size", "64MiB",
    )  # fmt: skip
    agent = program(
        "log-agent", admin, "--include", str(logs / "access.log*"), "--state-dir", str(state),
        "--sink", f"ndjson+http://127.0.0.1:{receiver.server_port}/", "--max-line", "1KiB",
    )  # fmt: skip

    def ask(path="/"):
        try:
            return get(f"http://{server.addresses['content']}{path}")
        except urllib.error.HTTPError:
            return None

    wait_for("the Pod is ready", lambda: ready(server))
    ask()
    pod = {"web-server": server, "file-puller": puller, "log-agent": agent}
    for name, one in pod.items():
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=get(f"http://{one.addresses['admin']}/metrics"),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if checked.returncode == 1:
            raise SystemExit(f"test.py: {name}: promtool refuses /metrics: {checked.stderr}")
        print(f"{name}: promtool accepts /metrics", flush=True)
    resident = max(float(metric(one, "process_resident_memory_bytes")) for one in pod.values())

    config = folder / "prometheus.yaml"
    targets = [
        {"targets": [one.addresses["admin"]], "labels": {"container": name}} for name, one in pod.items()
    ]
    config.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "300ms", "scrape_timeout": "300ms", "evaluation_interval": "300ms"},
                "rule_files": ["alerts.yaml"],
                "scrape_configs": [{"job_name": "sidecar-pod", "static_configs": targets}],
            }
        )
    )
    (folder / "alerts.yaml").write_text(
        quickened((OVERLAY / "alerts.yaml").read_text(), int(resident * 1.5 / 0.9))
    )
    with (folder / "prometheus.log").open("wb") as log:
        prometheus = subprocess.Popen(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
             "--web.listen-address=127.0.0.1:0"],
            stdout=log, stderr=log,
        )  # fmt: skip
    running.append(prometheus)
    address = wait_for("Prometheus listens", lambda: listening_address(folder / "prometheus.log", prometheus))

    def query(path):
        try:
            return json.loads(get(f"http://{address}/api/v1/{path}"))["data"]
        except OSError:
            return None

    def firing(name):
        alerts = (query("alerts") or {"alerts": []})["alerts"]
        return any(alert["labels"]["alertname"] == name and alert["state"] == "firing" for alert in alerts)

    def up():
        found = query("query?query=" + urllib.parse.quote('sum(up{job="sidecar-pod"})'))
        return found and found["result"] and found["result"][0]["value"][1] == "3"

    def seen_start():
        found = query("query?query=" + urllib.parse.quote('process_start_time_seconds{container="web-server"}'))
        return found and found["result"] and float(found["result"][0]["value"][1])

    wait_for("Prometheus sees all three", up)
    rules = [rule["name"] for group in query("rules")["groups"] for rule in group["rules"]]
    quiet = [name for name in rules if firing(name)]
    if quiet:
        raise SystemExit(f"test.py: these fire without a cause: {quiet}")

    def lose_a_line():
        ask("/" + "x" * 2000)

    def refuse_a_release():
        (content / "index.html").unlink()

    def fail_the_sink():
        Receiver.failing = True
        ask()

    def hold_removed_files():
        # The sink fails since the cause before, so the agent keeps what is removed.
        for _ in range(20):
            ask()
        (logs / "access.log").unlink()

    def grow():
        (content / "index.html").write_text("second")
        for number in range(100):
            (content / f"{number}.bin").write_bytes(os.urandom(200_000))
        wait_for("the release of 20 MB is served", lambda: ask("/99.bin"))
        for number in range(100):
            ask(f"/{number}.bin")

    def restart_twice():
        for _ in range(2):
            server.kill()
            server.start()
            started = wait_for("the server is up again", lambda: ready(server) and metric(server, "process_start_time_seconds"))
            wait_for("Prometheus has seen that", lambda started=started: seen_start() == float(started))

    causes = {
        "SidecarPodLinesLost": lose_a_line,
        "SidecarPodReleaseRefused": refuse_a_release,
        "SidecarPodMemoryNearLimit": grow,
        "SidecarPodSinkFailing": fail_the_sink,
        "SidecarPodHeldSpace": hold_removed_files,
        "SidecarPodContainerRestarts": restart_twice,
        "SidecarPodContentStale": manager.kill,
        "SidecarPodContainerDown": server.kill,
    }
    if set(causes) != set(rules):
        raise SystemExit(f"test.py: rules without a cause here, or the other way round: {set(causes) ^ set(rules)}")
    series = dashboard_series()
    for name, cause in causes.items():
        if name == "SidecarPodContainerDown":
            # Once the server is gone, its series go as well.
            for one in series:
                wait_for(f"the dashboard's series {one} exists", lambda one=one: query(f"series?match[]={one}"))
        cause()
        wait_for(f"the alert {name} fires", lambda name=name: firing(name))
        print(f"{name}: fires", flush=True)
    print(f"dashboard: all of {len(series)} series exist")


def ready(program):
    try:
        return get(f"http://{program.addresses['admin']}/readyz")
    except OSError:
        return None


def metric(program, name):
    page = get(f"http://{program.addresses['admin']}/metrics")
    return next(line.split(" ")[1] for line in page.splitlines() if line.startswith(name + " "))


def listening_address(log, process):
    if process.poll() is not None:
        raise SystemExit(f"test.py: Prometheus ended: {log.read_text()}")
    found = re.search(r'msg="Listening on" address=(127\.0\.0\.1:\d+)', log.read_text())
    return found and found.group(1)


def dashboard_series():
    """The names of all series that the dashboard's queries read."""
    dashboard = json.loads((OVERLAY / "dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    names = {name for query in queries for name in re.findall(r"\b(?:web_server|file_puller|log_agent|process)_\w+", query)}
    return sorted(names)


if __name__ == "__main__":
    main(sys.argv[1])
