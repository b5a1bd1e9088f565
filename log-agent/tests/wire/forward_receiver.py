"""A receiver of the Forward protocol, v1, with its handshake: the server's side of the specification and nothing else.

https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1, sections "Handshake Messages" and "Event Modes". What the
specification leaves open is decided as strictly as the two servers in use decide it: a `HELO` has a non-empty `auth` salt whether or
not there are users, as Fluentd's and Fluent Bit's have; every element of a `PING` must be a string, and a `PING` may have 1,023 bytes,
as Fluent Bit demands.
"""

import hashlib
import os
import socketserver
import struct
import threading

import msgpack

PING_LIMIT = 1023


def sha512(*parts):
    """`sha512_hex` of the specification: over the parts one after the other, in lower-case hexadecimal digits."""
    return hashlib.sha512(b"".join(part if isinstance(part, bytes) else part.encode() for part in parts)).hexdigest()


class Refused(Exception):
    """Why the server ends the handshake."""


class Connection(socketserver.BaseRequestHandler):
    """One client's connection."""

    def handle(self):
        self.unpacker = msgpack.Unpacker(strict_map_key=False, raw=False, unicode_errors="surrogateescape")
        self.received = 0
        try:
            if self.server.shared_key is not None:
                self.handshake()
            while (message := self.message()) is not None:
                self.transport(message)
        except Refused as refused:
            self.server.note(f"refused: {refused}")
        except ConnectionError:
            pass

    def message(self):
        """The next array that the client sends; none at the end of the connection."""
        while True:
            try:
                return self.unpacker.unpack()
            except msgpack.OutOfData:
                data = self.request.recv(1 << 16)
                if not data:
                    return None
                self.received += len(data)
                self.unpacker.feed(data)

    def send(self, value):
        self.request.sendall(msgpack.packb(value))

    def handshake(self):
        # Random bytes in strings, as Fluent Bit sends them: not every string is UTF-8.
        self.nonce, self.auth_salt = self.server.random(16), self.server.random(16)
        as_string = lambda value: msgpack.Packer(use_bin_type=False).pack(value)
        options = b"\x83" + b"".join(
            [as_string("nonce"), as_string(self.nonce), as_string("auth"), as_string(self.auth_salt), as_string("keepalive"), b"\xc3"]
        )
        self.request.sendall(b"\x92" + as_string("HELO") + options)
        ping = self.message()
        if ping is None:
            raise Refused("the client left")
        if self.received > PING_LIMIT:
            raise Refused(f"a PING of {self.received} bytes")
        if not isinstance(ping, list) or len(ping) != 6 or ping[0] != "PING":
            raise Refused(f"no PING: {ping!r}")
        for element in ping:
            if not isinstance(element, str):
                raise Refused(f"a PING's element is no string: {element!r}")
        self.pong(*ping[1:])

    def pong(self, hostname, salt, digest, username, password):
        """Checks a PING, and answers it."""
        self.server.note_ping(hostname, salt, digest, username, password)
        if digest != sha512(salt, hostname, self.nonce, self.server.shared_key):
            self.send(["PONG", False, "shared_key mismatch", "", ""])
            raise Refused("shared_key mismatch")
        if self.server.users:
            known = self.server.users.get(username)
            if known is None or password != sha512(self.auth_salt, username, known):
                self.send(["PONG", False, "username/password mismatch", "", ""])
                raise Refused("username/password mismatch")
        own = self.server.hostname
        self.send(["PONG", True, "", own, sha512(salt, own, self.nonce, self.server.shared_key)])

    def transport(self, message):
        tag, entries, option = message
        if not isinstance(tag, str) or not isinstance(entries, (bytes, str)):
            raise Refused("no PackedForward message")
        stream = msgpack.Unpacker(raw=False)
        stream.feed(entries)
        for time, record in stream:
            if time.code != 0 or len(time.data) != 8:
                raise Refused(f"no EventTime: {time!r}")
            self.server.note_event(tag, struct.unpack(">II", time.data), record)
        if "chunk" in option:
            self.send({"ack": option["chunk"]})


class Reflecting(Connection):
    """An attacker without the key: gives the client's own name and digest back to it."""

    def pong(self, hostname, salt, digest, username, password):
        self.server.note_ping(hostname, salt, digest, username, password)
        self.send(["PONG", True, "", hostname, digest])


class Replaying(Connection):
    """An attacker without the key: gives back the digest that the client sent on its connection before."""

    def pong(self, hostname, salt, digest, username, password):
        before = self.server.pings[-1] if self.server.pings else (hostname, salt, digest)
        self.server.note_ping(hostname, salt, digest, username, password)
        self.send(["PONG", True, "", before[0] + ".", before[2]])


class Server(socketserver.ThreadingTCPServer):
    """Listens on a free port of 127.0.0.1, in a thread of its own."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, connection=Connection, *, shared_key=None, users=None, hostname="receiver", random=os.urandom):
        super().__init__(("127.0.0.1", 0), connection)
        self.shared_key, self.users, self.hostname, self.random = shared_key, users or {}, hostname, random
        self.pings, self.events, self.notes = [], [], []
        self.changed = threading.Condition()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self):
        return self.server_address[1]

    def note(self, text):
        with self.changed:
            self.notes.append(text)
            self.changed.notify_all()

    def note_ping(self, *ping):
        with self.changed:
            self.pings.append(ping)
            self.changed.notify_all()

    def note_event(self, *event):
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()

    def wait(self, what, condition, seconds=20):
        with self.changed:
            if not self.changed.wait_for(condition, seconds):
                raise SystemExit(f"{what}: not within {seconds} s; notes {self.notes}, pings {self.pings}, {len(self.events)} events")
