"""Runs log-agent against Forward receivers with a handshake, real ones and false ones."""

import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile

import forward_receiver
from forward_receiver import Reflecting, Replaying, Server

AGENT = sys.argv[1]
KEY, USER, PASSWORD = "a key", "agent", "a password"
POD = "web-0"


@contextlib.contextmanager
def agent(server, key=KEY, user=None, password=PASSWORD):
    """A running agent, with one line to ship; what it says on stderr is in the file that this gives."""
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        (directory / "a.log").write_text("line 0\n")
        (directory / "key").write_text(key + "\n")
        (directory / "password").write_text(password + "\n")
        command = [AGENT, "--include", directory / "a.log", "--state-dir", directory / "state", "--sink", f"forward://127.0.0.1:{server.port}/tag"]
        command += ["--forward-shared-key-file", directory / "key", "--admin-addr", "127.0.0.1:0", "--shutdown-timeout", "1s"]
        if user:
            command += ["--forward-user", user, "--forward-password-file", directory / "password"]
        with open(directory / "stderr", "wb") as stderr:
            process = subprocess.Popen(command, stderr=stderr, env={**os.environ, "POD_NAME": POD})
        try:
            yield directory / "stderr"
        finally:
            process.terminate()
            process.wait(10)


def arrives(what, server, **options):
    with agent(server, **options):
        server.wait(what, lambda: server.events)
        (tag, _, record), *more = server.events
        assert (tag, record["body"], more) == ("tag", "line 0", []), server.events
    print(f"{what}: the line arrives")


def refused(what, server, reason, **options):
    """The client comes again and again, and gives nothing away."""
    with agent(server, **options) as stderr:
        server.wait(what, lambda: len(server.pings) >= 3 or len(server.notes) >= 3)
        assert not server.events, server.events
        assert reason in stderr.read_text(), stderr.read_text()
    print(f"{what}: nothing is sent")


def main():
    server = Server(shared_key=KEY)
    arrives("a key and no users", server)
    assert server.pings[0][3] == "", "no user was configured, so the name is empty"
    arrives("a key and users", Server(shared_key=KEY, users={USER: PASSWORD}), user=USER)
    # A user that the receiver does not ask for does no harm.
    arrives("a key, and a user that nobody asked for", Server(shared_key=KEY), user=USER)
    # The receiver is in the same Pod, so both have one host name.
    arrives("a receiver with our own host name", Server(shared_key=KEY, hostname=POD))
    refused("another key", Server(shared_key="another"), "shared_key mismatch")
    refused("a user that is needed and was not given", Server(shared_key=KEY, users={USER: PASSWORD}), "username/password mismatch")
    refused("a wrong password", Server(shared_key=KEY, users={USER: PASSWORD}), "username/password mismatch", user=USER, password="wrong")
    refused("a receiver that reflects", Server(Reflecting, shared_key="unknown to it"), "reflection")
    # The same nonce each time, so that only the client's own salt keeps one connection from another.
    refused("a receiver that replays", Server(Replaying, shared_key="unknown to it", random=lambda size: b"0" * size), "does not know the shared key")
    server = Server(shared_key=KEY)
    with agent(server):
        server.wait("the first", lambda: server.events)
    with agent(server):
        server.wait("the second", lambda: len(server.events) >= 2)
    (first, salt, *_), (second, again, *_) = server.pings
    assert first != second and first.startswith(POD) and second.startswith(POD) and salt != again, server.pings
    print("each start has a name of its own, each connection a salt of its own")


assert forward_receiver.sha512("", b"").startswith("cf83e1357eefb8bd")
main()
