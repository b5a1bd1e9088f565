"""web-server in a container of 64 MiB, against clients that would like more.

Each case is a function; its docstring says what is held. After every case the container still runs, nothing in it was killed for
memory, what the cgroup counts besides reclaimable page cache stayed under the limit with the sockets' memory added (version 2
counts that, version 1 does not), and a client that came meanwhile was answered 200.

How long that client waited is printed beside the 100 ms that are aimed at. The clients here are Python's, on the server's own
processors, and CI's machine may be loud. So the time for which the server could have run, but had no processor (the kernel counts
it: `run_delay` in /proc/PID/schedstat), is taken off before a wait is held against `WITHIN`; on a quiet machine that is next to
nothing. For the same reason clients that come by the thousands come as fast as the server accepts them: what the kernel does with
more connections than fit into its queue is nothing that a server could decide.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import pathlib
import resource
import selectors
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

MIB = 1024 * 1024
LIMIT = 64 * MIB
IMAGE = sys.argv[1]
# What another client is to wait at most in 98 of 100 requests: what is aimed at, and what fails a case.
AIM, WITHIN = 0.1, 0.6
# For a client's own steps, which take as long as the machine lets them.
TIMEOUT = 30
# Sends from a few addresses, so that none runs out of ports.
ADDRESSES = [f"127.0.0.{n}" for n in range(2, 10)]
# So many connections may wait to be accepted before more come; it is looked at with each of so many connections.
QUEUE, QUEUE_LOOK = 512, 128


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A container with the shipped flags over a volume of one release."""

    def __init__(self, files=None, *, plain=False, user=None, directory=None, flags=()):
        self.volume = pathlib.Path(tempfile.mkdtemp(prefix="web-memory-", dir=directory))
        os.chmod(self.volume, 0o755)
        self.plain = plain
        # Of each container: the access log that the manifests ask for.
        self.log = pathlib.Path(tempfile.mkdtemp(prefix="web-memory-log-"))
        os.chmod(self.log, 0o777)
        if files is not None:
            self.publish("one", files)
        self.port, self.admin = free_port(), free_port()
        command = ["docker", "run", "--detach", "--network", "host", "--memory", str(LIMIT), "--memory-swap", str(LIMIT)]
        command += ["--user", user] if user else []
        command += ["--ulimit", "nofile=20000:20000", "--volume", f"{self.volume}:/volume:ro", "--volume", f"{self.log}:/logs", IMAGE]
        command += ["--root", "/volume/one" if plain else "/volume/current", "--listen", f"0.0.0.0:{self.port}"]
        command += ["--admin-addr", f"127.0.0.1:{self.admin}", "--termination-log", "/dev/null"]
        command += ["--access-log", "/logs/access.log", "--cache-size", "16MiB", *flags]
        self.id = subprocess.check_output(command, text=True).strip()
        inspected = subprocess.check_output(["docker", "inspect", "--format", "{{.State.Pid}}", self.id])
        self.pid = int(inspected)
        self.most = 0

    def publish(self, release, files):
        root = self.volume / ("one" if self.plain else f"releases/{release}")
        for path, content in files.items():
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, int):
                with open(file, "wb") as out:
                    for _ in range(content // 4096):
                        out.write(os.urandom(64) * 64)
            else:
                file.write_bytes(content)
        if not self.plain:
            link = self.volume / ".next"
            link.symlink_to(f"releases/{release}")
            link.rename(self.volume / "current")

    def wait_until(self, what, condition, seconds=60):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                if condition():
                    return
            self.measure()
            time.sleep(0.05)
        raise AssertionError(f"{what} did not happen within {seconds} s: {self.logs()[-2000:]}")

    def fill_cache(self):
        """A release is in memory before it is served; a file of a plain directory is so after the first request for it."""
        # What was written a moment ago may still change unseen, and is not remembered.
        time.sleep(0.2)
        for path in SITE:
            self.get(f"/{path}")
        held = self.status()["content"]["held_bytes"]
        assert held > CACHE * 3 // 4, f"only {held / MIB:.1f} MiB are in memory"

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return answer.read()

    def status(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/status", timeout=10) as answer:
            return json.load(answer)

    def ready(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=10) as answer:
            return answer.status == 200

    def logs(self):
        return subprocess.run(["docker", "logs", self.id], capture_output=True, text=True).stderr

    def cgroup(self):
        for path in (f"/sys/fs/cgroup/memory/docker/{self.id}", f"/sys/fs/cgroup/system.slice/docker-{self.id}.scope",
                     f"/sys/fs/cgroup/docker/{self.id}"):
            if os.path.isdir(path):
                return pathlib.Path(path)
        # Of a container that has ended there is none.
        self.check()
        raise AssertionError("the container's cgroup is not where it is looked for")

    def measure(self):
        """What is in use, without what the kernel would give back (page cache, names, inodes), and with the sockets' memory."""
        used = self.in_use()
        emptied = self.cgroup() / "memory.force_empty"
        if used > 0.95 * LIMIT and emptied.exists():
            # Version 1 does not say how many names and inodes it remembers. It gives them back when it is told to.
            with contextlib.suppress(OSError):
                emptied.write_text("0")
            used = self.in_use()
        self.most = max(self.most, used)
        return used

    def in_use(self):
        group = self.cgroup()
        stat = {name: int(value) for name, value in (line.split() for line in (group / "memory.stat").read_text().splitlines())}
        if (group / "memory.usage_in_bytes").exists():
            used = int((group / "memory.usage_in_bytes").read_text()) + self.sockets()
            return used - stat["total_active_file"] - stat["total_inactive_file"]
        used = int((group / "memory.current").read_text())
        return used - stat["active_file"] - stat["inactive_file"] - stat["slab_reclaimable"]

    def sockets(self):
        lines = subprocess.check_output(["ss", "-tmnH", "state", "connected", f"( sport = :{self.port} )"], text=True)
        total = 0
        for line in lines.splitlines():
            _, found, fields = line.partition("skmem:(")
            if found:
                values = dict((field.rstrip("0123456789)"), field) for field in fields.rstrip(")").split(","))
                total += sum(int("".join(c for c in values[key] if c.isdigit())) for key in ("r", "f", "w"))
        return total

    def queue(self):
        """How many connections wait to be accepted."""
        return int(subprocess.check_output(["ss", "-ltnH", f"( sport = :{self.port} )"], text=True).split()[1])

    def check(self):
        state = json.loads(subprocess.check_output(["docker", "inspect", "--format", "{{json .State}}", self.id]))
        assert not state["OOMKilled"] and state["Running"], f"killed: {state}\n{self.logs()[-2000:]}"
        assert self.most < LIMIT, f"{self.most / MIB:.1f} MiB in use"
        # Without this, a server that found no limit would hold to one by luck.
        limit = self.status()["memory"]["limit_bytes"]
        assert limit == LIMIT, f"the server holds itself to {limit} bytes"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["docker", "rm", "--force", self.id], capture_output=True)
        for directory in (self.volume, self.log):
            shutil.rmtree(directory, ignore_errors=True)


def run_delay(pid):
    """For how many seconds a process could have run, but others did."""
    return int(pathlib.Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def ask(port, pid, results, stop):
    """Another client, in a process of its own: asks again and again, each time on a new connection. Where it had no processor between
    its connection and its request, it was a client that says nothing, and such are closed for others: that is no outcome."""
    while not stop.is_set():
        begin, delay = time.monotonic(), run_delay(pid)
        try:
            own = run_delay(os.getpid())
            with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as s:
                s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                silent = run_delay(os.getpid()) - own > 0.001
                answer = s.recv(4096)
            if silent and not answer:
                continue
            outcome = answer.split(b"\r\n")[0].decode()
        except OSError as error:
            outcome = repr(error)
        took = time.monotonic() - begin
        with contextlib.suppress(OSError):
            delay = run_delay(pid) - delay
        results.put((took, max(0, took - delay), outcome))
        time.sleep(0.05)


@contextlib.contextmanager
def another_client(server):
    results, stop = multiprocessing.Queue(), multiprocessing.Event()
    process = multiprocessing.Process(target=ask, args=(server.port, server.pid, results, stop), daemon=True)
    process.start()
    try:
        yield
    finally:
        stop.set()
        answers = []
        while process.is_alive() or not results.empty():
            with contextlib.suppress(Exception):
                answers.append(results.get(timeout=0.2))
        process.join()
    assert answers, "another client was never answered"
    bad = [outcome for _, _, outcome in answers if " 200 " not in outcome]
    took, fair = (sorted(answer[n] for answer in answers) for n in (0, 1))
    # One in fifty may wait for the machine, which is loud, rather than for the server.
    nearly_all = int(len(answers) * 0.98)
    slow = fair[nearly_all]
    aim = "" if slow < AIM else f", beyond the {AIM * 1000:.0f} ms that are aimed at"
    print(f"    another client: {len(answers)} answers, 98 % within {took[nearly_all] * 1000:.0f} ms, the slowest {took[-1] * 1000:.0f} ms;"
          f" without the time in which the server had no processor: {slow * 1000:.0f} ms{aim}")
    assert not bad, f"{len(bad)} of {len(answers)}: {bad[:3]}"
    assert slow < WITHIN, f"98 % only within {slow * 1000:.0f} ms"


def connect(server, number, receive=None):
    if number % QUEUE_LOOK == 0:
        server.wait_until("connections are accepted", lambda: server.queue() < QUEUE)
    s = socket.socket()
    if receive:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    s.bind((ADDRESSES[number % len(ADDRESSES)], 0))
    s.settimeout(TIMEOUT)
    s.connect(("127.0.0.1", server.port))
    return s


def send(s, data):
    """Sends; a connection that was closed meanwhile is what these cases are about."""
    with contextlib.suppress(OSError):
        s.sendall(data)


def settle(server, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        server.measure()
        time.sleep(0.2)


# HTTP/2, as little of it as is needed (RFC 9113 section 4.1; RFC 7541 section 6).

def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def preface(window, connection_window=0):
    settings = frame(4, 0, 0, struct.pack(">HI", 4, window))
    more = frame(8, 0, 0, struct.pack(">I", connection_window)) if connection_window else b""
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + more


def request(stream, path):
    path = path.encode()
    return frame(1, 0x5, stream, b"\x82\x86\x04" + bytes([len(path)]) + path + b"\x01\x01h")


def literal(name, value):
    """A field in full, which both sides remember from then on (RFC 7541 section 6.2.1)."""
    length = bytes([len(value)]) if len(value) < 127 else b"\x7f"
    rest = len(value) - 127
    while rest >= 0:
        length += bytes([rest % 128 | (128 if rest >= 128 else 0)])
        rest = rest // 128 or -1
    return b"\x40" + bytes([len(name)]) + name + length + value


def long_request(stream, fields):
    """A request for the page with more fields, in as many frames as they take."""
    block = b"\x82\x86\x84\x01\x01h" + fields
    pieces = [block[at:at + 16384] for at in range(0, len(block), 16384)]
    kinds = [(1, 1)] + [(9, 0)] * (len(pieces) - 1)
    kinds[-1] = (kinds[-1][0], kinds[-1][1] | 4)
    return b"".join(frame(kind, flags, stream, piece) for (kind, flags), piece in zip(kinds, pieces))


# Next to what the shipped cache holds (16 MiB), so that next to nothing is left over for what a case asks.
CACHE = 15 * MIB
SITE = {"index.html": b"hello", **{f"cache/{n:03}.bin": bytes([n % 256]) * (64 * 1024) for n in range(CACHE // (64 * 1024))}}
LARGE = {**SITE, "large.bin": 3 * MIB}


def http2_streams(window, connection_window=0):
    with Server(LARGE) as server:
        server.wait_until("it serves", lambda: server.get("/") == b"hello")
        server.fill_cache()
        with another_client(server):
            clients = [connect(server, n) for n in range(40)]
            for client in clients:
                send(client, preface(window, connection_window))
                send(client, b"".join(request(2 * n + 1, "/large.bin") for n in range(64)))
            settle(server, 6)
        server.check()
        return server.most


def http2_streams_that_are_not_read():
    """40 connections with 64 streams each of a file of 3 MB, which the client does not read."""
    return http2_streams(65535)


def http2_windows_of_one_byte():
    """The same with flow-control windows of one byte."""
    return http2_streams(1)


def http2_windows_of_no_byte():
    """The same with flow-control windows of no byte."""
    return http2_streams(0)


def http2_windows_of_a_gigabyte():
    """The same with flow-control windows of a gigabyte, so that nothing but the server's own bounds holds."""
    return http2_streams(2**30, 2**30)


def http2_heads(first, fields):
    """40 connections with 64 requests each that have these fields, whose answers the client does not take."""
    with Server(SITE) as server:
        server.wait_until("it serves", lambda: server.get("/") == b"hello")
        server.fill_cache()
        with another_client(server):
            clients = [connect(server, n) for n in range(40)]
            for client in clients:
                send(client, preface(0) + long_request(1, first))
            # A few requests of each client after the other's, so that all of them come to be answered at the same time.
            for n in range(1, 64):
                for client in clients:
                    send(client, long_request(2 * n + 1, fields))
                if n % 8 == 0:
                    server.measure()
            settle(server, 6)
        server.check()
        return server.most


def http2_long_heads():
    """40 connections with 64 requests each of 15 KB, of which the client takes no answer."""
    fields = b"".join(literal(b"x-%03d" % n, b"x" * 950) for n in range(15))
    return http2_heads(fields, fields)


def http2_heads_of_many_fields():
    """The same with requests of 450 fields, each of which is one byte on the wire."""
    return http2_heads(literal(b"x", b""), b"\xbe" * 450)


def http2_heads_beyond_what_is_read():
    """The same with requests of 950 fields."""
    return http2_heads(literal(b"x", b""), b"\xbe" * 950)


def http2_fast_clients():
    """8 honest clients with 128 streams each, which read all that comes."""
    with Server(LARGE) as server:
        server.wait_until("it serves", lambda: server.get("/") == b"hello")
        server.fill_cache()
        received = 0
        with another_client(server):
            selector = selectors.DefaultSelector()
            for n in range(8):
                client = connect(server, n)
                send(client, preface(2**20, 2**30))
                send(client, b"".join(request(2 * i + 1, "/large.bin") for i in range(128)))
                client.setblocking(False)
                selector.register(client, selectors.EVENT_READ)
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:
                for key, _ in selector.select(0.1):
                    with contextlib.suppress(OSError):
                        received += len(key.fileobj.recv(MIB))
                if int(time.monotonic() * 10) % 2 == 0:
                    server.measure()
        print(f"    {received / MIB:.0f} MiB received")
        assert received > 30 * MIB
        server.check()
        return server.most


def idle_connections():
    """8,192 connections that were answered once and stay open."""
    with Server(SITE) as server:
        server.wait_until("it serves", lambda: server.get("/") == b"hello")
        server.fill_cache()
        with another_client(server):
            clients = []
            for n in range(8192):
                client = connect(server, n)
                send(client, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                clients.append(client)
                if n % 500 == 0:
                    server.measure()
            settle(server, 3)
        answered = sum(1 for client in clients if answered_200(client))
        assert answered == 8192, f"{answered} were answered"
        server.check()
        print(f"    {server.status()['connections']} connections are kept")
        return server.most


def answered_200(client):
    client.settimeout(1)
    try:
        return client.recv(1000).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def many_connections(data):
    with Server(SITE) as server:
        server.wait_until("it serves", lambda: server.get("/") == b"hello")
        server.fill_cache()
        with another_client(server):
            clients = []
            for n in range(8000):
                client = connect(server, n)
                send(client, data)
                clients.append(client)
                if n % 500 == 0:
                    server.measure()
            settle(server, 3)
        server.check()
        return server.most


def unfinished_heads():
    """8,000 heads of 31 KB that are not finished."""
    return many_connections(b"GET / HTTP/1.1\r\nHost: h\r\n" + b"".join(b"X-%03d: " % n + b"x" * 1000 + b"\r\n" for n in range(31))[:31000])


def http2_prefaces():
    """8,000 connections that begin with HTTP/2's preface and say no more."""
    return many_connections(preface(65535))


# As many as HTTP/1.1's parser takes.
TINY_FIELDS = b"".join(b"%c%c:\r\n" % (97 + n // 10, 97 + n % 10) for n in range(95))


def slow_readers(count, plain, fields=b""):
    with Server(LARGE, plain=plain) as server:
        server.wait_until("it serves", lambda: server.get("/") == b"hello")
        server.fill_cache()
        with another_client(server):
            clients = []
            for n in range(count):
                client = connect(server, n, receive=4096)
                send(client, b"GET /large.bin HTTP/1.1\r\nHost: h\r\n" + fields + b"\r\n")
                clients.append(client)
                if n % 200 == 0:
                    server.measure()
            settle(server, 5)
        server.check()
        print(f"    {server.status()['connections']} connections are kept")
        return server.most


def slow_readers_of_a_release():
    """2,000 clients that read next to nothing of a file of a release."""
    return slow_readers(2000, plain=False)


def slow_readers_of_a_plain_directory():
    """1,000 clients that read next to nothing of a file of a plain directory."""
    return slow_readers(1000, plain=True)


def slow_readers_with_many_fields():
    """2,000 clients that read next to nothing of what they asked for with as many fields as a request can have."""
    return slow_readers(2000, plain=False, fields=TINY_FIELDS)


def name(n, generation):
    return f"d{n % 100:02}/{generation}-{n:06}-" + "n" * 180 + ".txt"


def a_release_of_many_files():
    """100,000 files with names of 200 bytes; a second release with one change, which is served; and a third, wholly renamed, which
    does not fit beside the second: that stays, and why is said."""
    # Without a disk: it is the index that counts here.
    with Server({**SITE, **{name(n, "a"): b"x" for n in range(100_000)}}, directory="/dev/shm") as server:
        releases = server.volume / "releases"
        server.wait_until("it serves", lambda: server.get("/") == b"hello", 120)
        assert server.get("/" + name(77_777, "a")) == b"x"
        with another_client(server):
            subprocess.check_call(["cp", "-al", releases / "one", releases / "two"])
            (releases / "two/index.html").unlink()
            server.publish("two", {"index.html": b"changed"})
            server.wait_until("the change is served", lambda: server.get("/") == b"changed", 120)
            for n in range(100_000):
                file = releases / "three" / name(n, "b")
                file.parent.mkdir(parents=True, exist_ok=True)
                os.link(releases / "one" / name(n, "a"), file)
            server.publish("three", {"index.html": b"renamed"})
            server.wait_until("it is said", lambda: "memory-limit" in server.logs() or server.get("/") == b"renamed", 120)
        assert server.ready()
        content = server.status()["content"]
        print(f"    {content}")
        assert server.get("/") == b"renamed" or content.get("refused"), content
        server.check()
        return server.most


MANY = {**SITE, **{name(n, "a"): b"x" for n in range(100_000)}}


def manifest_of(files):
    """The manifest that a publisher leaves beside a release."""
    lines = [json.dumps({"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "mode": "0644"})
             for path, content in sorted(files.items())]
    head = '{"format": "sidecar-manifest/1", "created": "2026-01-01T00:00:00Z", "files": ['
    return (head + ",\n".join(lines) + "]}\n").encode()


def outcome_of_the_manifest(server):
    """The status code of a question for the manifest, and its entity tag."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT) as s:
        s.sendall(b"GET /manifest.json HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            received = s.recv(4096)
            if not received:
                raise OSError("closed")
            head += received
        etags = [line[6:].decode() for line in head.split(b"\r\n") if line.lower().startswith(b"etag: ")]
        return int(head[9:12]), etags[0] if etags else None


def wait_for_another(server, number, etag, fields=""):
    client = connect(server, number)
    head = f"GET /manifest.json HTTP/1.1\r\nHost: h\r\nPrefer: wait=50\r\nIf-None-Match: {etag}\r\n{fields}\r\n"
    send(client, head.encode())
    return client


def read_all(server, clients, seconds):
    """Reads what comes, and says how many were answered 200."""
    selector, answered = selectors.DefaultSelector(), set()
    for client in clients:
        client.setblocking(False)
        selector.register(client, selectors.EVENT_READ)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and len(answered) < len(clients):
        for key, _ in selector.select(0.1):
            with contextlib.suppress(OSError):
                if key.fileobj.recv(MIB).startswith(b"HTTP/1.1 200"):
                    answered.add(key.fileobj)
        server.measure()
    return len(answered)


def refused(server):
    """Whether the manifest is refused, and content is served all the same."""
    if not server.status()["manifest_refused"]:
        return False
    assert server.ready() and server.get("/").startswith(b"hello")
    return "memory-limit" in server.logs()


def a_live_manifest_of_many_files():
    """A live manifest of 25,000 files with names of 200 bytes, and edits for which 100 clients wait; then of 100,000 files, which does
    not fit: the one before it stays, and why is said."""
    few = {**SITE, **{name(n, "a"): b"x" for n in range(25_000)}}
    with Server(few, plain=True, directory="/dev/shm", flags=["--manifest"]) as server:
        server.wait_until("the manifest is made", lambda: outcome_of_the_manifest(server)[0] == 200, 120)
        with another_client(server):
            for edit in range(3):
                _, etag = outcome_of_the_manifest(server)
                clients = [wait_for_another(server, n, etag) for n in range(100)]
                server.wait_until("they wait", lambda: server.status()["manifest_waiters"] == 100)
                (server.volume / "one/index.html").write_bytes(b"hello again" + b"!" * edit)
                told = read_all(server, clients, 30)
                print(f"    edit {edit + 1}: {told} of 100 were told; {server.status()['memory']['manifest_bytes'] / MIB:.1f} MiB in manifests")
                assert told == 100
                for client in clients:
                    client.close()
            for n in range(25_000, 100_000):
                (server.volume / "one" / name(n, "a")).write_bytes(b"x")
            server.wait_until("it is said", lambda: refused(server), 120)
            settle(server, 12)
            assert refused(server)
            assert outcome_of_the_manifest(server)[0] == 200
        server.check()
        return server.most


def held_requests(fields):
    with Server(SITE, plain=True, flags=["--manifest"]) as server:
        server.wait_until("the manifest is made", lambda: outcome_of_the_manifest(server)[0] == 200)
        server.fill_cache()
        _, etag = outcome_of_the_manifest(server)
        with another_client(server):
            clients = []
            for n in range(3000):
                clients.append(wait_for_another(server, n, etag, fields))
                if n % 200 == 0:
                    server.measure()
            settle(server, 3)
            print(f"    {server.status()['manifest_waiters']} are held")
            # All of them are answered at about the same time.
            (server.volume / "one/index.html").write_bytes(b"hello again")
            settle(server, 6)
        server.check()
        return server.most


def held_requests_with_long_heads():
    """3,000 clients that wait for another manifest, each with a head of 31 KB; then there is one."""
    return held_requests("".join(f"X-{n:02}: {'x' * 1000}\r\n" for n in range(30)))


def held_requests_with_short_heads():
    """The same with heads as pullers have them."""
    return held_requests("")


def a_listing_of_many_files():
    """The listing of a directory of 100,000 files with names of 200 bytes, for several clients at once: where it does not fit, that is
    said, to the client and in the log."""
    files = {f"many/{n:06}-{'n' * 193}": b"x" for n in range(100_000)}
    with Server({**SITE, **files}, directory="/dev/shm", flags=["--autoindex"]) as server:
        server.wait_until("it serves", lambda: server.get("/") == b"hello", 120)
        with another_client(server):
            clients = [connect(server, n) for n in range(4)]
            for n, client in enumerate(clients):
                accept = "application/json" if n % 2 else "text/html"
                send(client, f"GET /many/ HTTP/1.1\r\nHost: h\r\nAccept: {accept}\r\n\r\n".encode())
            outcomes = [client.recv(1000).split(b"\r\n")[0].decode() for client in clients]
            settle(server, 3)
        print(f"    {outcomes}")
        assert all(" 200 " in outcome or " 503 " in outcome for outcome in outcomes), outcomes
        assert "memory-limit" in server.logs()
        server.check()
        return server.most


def a_flag_above_the_containers_limit():
    """`--memory-limit` of a gigabyte in the container of 64 MiB: the container's limit holds, and that is said."""
    with Server(SITE, flags=["--memory-limit", "1GiB"]) as server:
        server.wait_until("it serves", lambda: server.get("/") == b"hello")
        assert "--memory-limit" in server.logs()
        server.measure()
        server.check()
        return server.most


def a_mirror_of_many_files():
    """A mirror of a release of 100,000 files with names of 200 bytes, whose manifest does not fit beside the index: that is said, and
    the content is served all the same."""
    with Server(MANY, directory="/dev/shm", flags=["--manifest"]) as server:
        (server.volume / "releases/one.json").write_bytes(manifest_of(MANY))
        server.wait_until("it serves", lambda: server.get("/") == b"hello", 120)
        with another_client(server):
            server.wait_until("it is said", lambda: refused(server), 120)
            settle(server, 12)
            assert refused(server)
        server.check()
        return server.most


def a_release_that_cannot_be_read_in_part():
    """A release with one file, or one directory, of mode 000 is refused whole and by name; the one before it stays."""
    with Server(SITE, user="65534:65534") as server:
        server.wait_until("it serves", lambda: server.get("/") == b"hello")
        for release, forbidden in (("two", "docs/closed.html"), ("three", "docs")):
            # Staged before it is published, so that no server sees it while it could still be read.
            root = server.volume / "releases" / release
            (root / "docs").mkdir(parents=True)
            (root / "docs/closed.html").write_bytes(b"closed")
            os.chmod(root / forbidden, 0)
            server.publish(release, {"index.html": b"changed"})
            server.wait_until("it is said", lambda: f"{forbidden}: Permission denied" in server.logs())
            assert server.get("/") == b"hello" and server.ready()
            os.chmod(root / forbidden, 0o755)
            # It is not remembered against the release: once it can be read, it is served.
            server.wait_until("it is served", lambda: server.get("/") == b"changed")
            server.publish(f"before-{release}", SITE)
            server.wait_until("the former content is back", lambda: server.get("/") == b"hello")
        server.check()
        return server.most


CASES = [http2_streams_that_are_not_read, http2_windows_of_one_byte, http2_windows_of_no_byte, http2_windows_of_a_gigabyte,
         http2_long_heads, http2_heads_of_many_fields, http2_heads_beyond_what_is_read, http2_fast_clients, idle_connections, unfinished_heads, http2_prefaces, slow_readers_of_a_release,
         slow_readers_of_a_plain_directory, slow_readers_with_many_fields, a_release_of_many_files, a_listing_of_many_files,
         a_live_manifest_of_many_files, held_requests_with_long_heads, held_requests_with_short_heads, a_mirror_of_many_files,
         a_flag_above_the_containers_limit,
         a_release_that_cannot_be_read_in_part]


def main():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert hard >= 10_000, "these cases need 10,000 descriptors: ulimit -n"
    wanted, failed = sys.argv[2:], []
    unknown = set(wanted) - {case.__name__ for case in CASES}
    assert not unknown, f"there is no case {', '.join(sorted(unknown))}"
    for case in CASES:
        if wanted and case.__name__ not in wanted:
            continue
        print(f"{case.__name__}: {case.__doc__}", flush=True)
        began = time.monotonic()
        try:
            most = case()
            print(f"    held: {most / MIB:.1f} MiB at most, {time.monotonic() - began:.0f} s", flush=True)
        except Exception as error:  # noqa: BLE001, all that goes wrong is told at the end
            print(f"    FAILED: {type(error).__name__}: {error}", flush=True)
            failed.append(case.__name__)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
