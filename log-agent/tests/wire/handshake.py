"""Runs log-agent against Forward receivers with a handshake, real ones and false ones."""

import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile

from forward_receiver import Server, reflecting, replaying, replaying_as_another, sha512_hex

AGENT = sys.argv[1]
KEY, USER, PASSWORD = "a key", "agent", "a password"
POD = "web-0"


@contextlib.contextmanager
def agent(server, key=KEY, user=None, password=PASSWORD, flags=()):
    """A running agent with one line to ship: its log file, and the file of what it says on stderr."""
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        (directory / "a.log").write_text("line 0\n")
        (directory / "key").write_text(key + "\n")
        (directory / "password").write_text(password + "\n")
        command = [AGENT, "--include", directory / "a.log", "--state-dir", directory / "state", "--sink", f"forward://127.0.0.1:{server.port}/tag"]
        command += ["--forward-shared-key-file", directory / "key", "--admin-addr", "127.0.0.1:0", "--shutdown-timeout", "1s", *flags]
        if user:
            command += ["--forward-user", user, "--forward-password-file", directory / "password"]
        with open(directory / "stderr", "wb") as stderr:
            process = subprocess.Popen(command, stderr=stderr, env={**os.environ, "POD_NAME": POD})
        try:
            yield directory / "a.log", directory / "stderr"
        finally:
            process.terminate()
            process.wait(10)


def arrives(what, server, **options):
    """Two lines, the second after the first was acknowledged."""
    with agent(server, **options) as (log, _):
        server.wait(what, lambda: server.events)
        with open(log, "a", encoding="ascii") as out:
            out.write("line 1\n")
        server.wait(what, lambda: len(server.events) >= 2)
        assert [(tag, record["body"]) for tag, _, record in server.events] == [("tag", "line 0"), ("tag", "line 1")], server.events
    print(f"{what}: the lines arrive")
    return server


def refused(what, server, reason, **options):
    """The client comes again and again, and gives nothing away."""
    with agent(server, **options) as (_, stderr):
        server.wait(what, lambda: len(server.pings) >= 3)
        assert not server.events, server.events
        assert reason in stderr.read_text(), stderr.read_text()
    print(f"{what}: nothing is sent")


def mended(what, server, name, right, **options):
    """What was refused arrives once the file has the right words, without a restart."""
    with agent(server, **options) as (log, _):
        server.wait(what, lambda: server.refusals)
        assert not server.events, server.events
        (log.parent / name).write_text(right + "\n")
        server.wait(what, lambda: server.events)
    print(f"{what}: the line arrives")


def main():
    server = arrives("a key and no users", Server(shared_key=KEY))
    assert server.pings[0][3] == "", "no user was configured, so the name is empty"
    assert isinstance(server.pings[0][1], str), "some receivers take no salt that is bin"
    assert server.connections == 1, "the connection is kept"
    arrives("a key, no users and no salt for them", Server(shared_key=KEY, salt_without_users=False))
    arrives("a user where authentication is not required", Server(shared_key=KEY, salt_without_users=False), user=USER)
    arrives("a user that the receiver does not know of, and does not ask for", Server(shared_key=KEY), user=USER)
    arrives("a key and users", Server(shared_key=KEY, users={USER: PASSWORD}), user=USER)
    arrives("salts as bin", Server(shared_key=KEY, users={USER: PASSWORD}, salts_as=bytes), user=USER)
    arrives("compressed", Server(shared_key=KEY), flags=["--compression", "gzip"])
    server = arrives("a receiver that disallows long connections", Server(shared_key=KEY, keepalive=False))
    assert server.connections == 2, "one for each message"
    # The receiver is in the same Pod, so both have one host name.
    arrives("a receiver with our own host name", Server(shared_key=KEY, hostname=POD))
    refused("another key", Server(shared_key="another"), "shared_key mismatch")
    refused("a user that is needed and was not given", Server(shared_key=KEY, users={USER: PASSWORD}), "username/password mismatch")
    refused("an unknown user", Server(shared_key=KEY, users={"other": PASSWORD}), "username/password mismatch", user=USER)
    refused("a wrong password", Server(shared_key=KEY, users={USER: PASSWORD}), "username/password mismatch", user=USER, password="wrong")
    mended("a key that is mended", Server(shared_key=KEY), "key", KEY, key="wrong")
    mended("a password that is mended", Server(shared_key=KEY, users={USER: PASSWORD}), "password", PASSWORD, user=USER, password="wrong")
    refused("a receiver that reflects", Server(shared_key="unknown to it", pong=reflecting), "reflection")
    # The same nonce each time, so that only what the client adds keeps one connection from another.
    constant = lambda size: b"0" * size
    refused("a receiver that replays", Server(shared_key="unknown to it", pong=replaying, random=constant), "it gives our own name back")
    refused("a receiver that replays under another name", Server(shared_key="unknown to it", pong=replaying_as_another, random=constant), "does not know the shared key")
    server = Server(shared_key=KEY)
    for count in (1, 2):
        with agent(server):
            server.wait("a start", lambda: len(server.events) >= count)
    (first, salt, *_), (second, again, *_) = server.pings
    assert first != second and first.startswith(POD) and second.startswith(POD) and salt != again, server.pings
    print("each start has a name of its own, each connection a salt of its own")


assert sha512_hex(b"").startswith("cf83e1357eefb8bd")
main()
