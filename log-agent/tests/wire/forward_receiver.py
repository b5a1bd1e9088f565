"""A receiver of the Forward protocol, written from the text of its specification and from nothing else.

https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1 (the version of September 12, 2016). Each check has the words of the
specification that it holds the client to. Where the text allows a client several things, `Options` chooses what the server does, so that
a client has to get along with each.
"""

import base64
import binascii
import dataclasses
import gzip
import hashlib
import os
import socket
import struct
import threading

import msgpack


class Violation(Exception):
    """The client does what the specification does not allow."""


class Closed(Exception):
    """The server ends the connection, as it has to."""


@dataclasses.dataclass
class Options:
    """What the specification leaves to the server."""

    shared_key: str | None = None
    # "Authorization: Server authorize client by having valid username and password pair. (optional)"
    users: dict = dataclasses.field(default_factory=dict)
    # "auth … (authentication not required if it's empty)": a server may send a salt all the same.
    salt_without_users: bool = True
    # "nonce … str|bin", "auth … str|bin"
    salts_as: type = str
    # "keepalive (optional) server disallow long life connections if false (default: true)"
    keepalive: bool | None = None
    hostname: str = "server.hostname.example.com"
    # Where the nonce comes from, and what is in the place of a PONG: for servers that are none.
    random: object = os.urandom
    pong: object = None


def sha512_hex(*parts):
    return hashlib.sha512(b"".join(parts)).hexdigest()


def pack(value, salts_as=bytes):
    """MessagePack, with byte strings as `bin` or as `str`: "a binary string" is not always UTF-8."""
    return msgpack.packb(value, use_bin_type=salts_as is bytes)


def as_bytes(value):
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")


def demand(condition, clause, value):
    if not condition:
        raise Violation(f"{clause}: {value!r}")


class Server:
    """Listens on 127.0.0.1. What clients did is in `pings`, `events`, `connections` and `violations`."""

    def __init__(self, **options):
        self.options = Options(**options)
        self.pings, self.events, self.violations, self.refusals = [], [], [], []
        self.connections = 0
        self.changed = threading.Condition()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            self.note(connections=1)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def note(self, connections=0, **lists):
        with self.changed:
            self.connections += connections
            for name, value in lists.items():
                getattr(self, name).append(value)
            self.changed.notify_all()

    def wait(self, what, condition, seconds=20):
        with self.changed:
            if not self.changed.wait_for(lambda: self.violations or condition(), seconds):
                raise SystemExit(f"{what}: not within {seconds} s; {self.pings}, {self.refusals}, {len(self.events)} events")
        if self.violations:
            raise SystemExit(f"{what}: {self.violations}")

    def serve(self, connection):
        with connection:
            values = msgpack.Unpacker(raw=False, unicode_errors="surrogateescape", strict_map_key=False)
            try:
                if self.options.shared_key is not None:
                    self.handshake(connection, values)
                while (message := receive(connection, values)) is not None:
                    # "Client MAY send a msgpack nil value for heartbeat health check usage"
                    self.transport(connection, message)
            except Violation as violation:
                self.note(violations=str(violation))
            except Closed as reason:
                self.note(refusals=str(reason))
            except ConnectionError:
                pass

    def handshake(self, connection, values):
        options = self.options
        nonce, auth = options.random(16), options.random(16)
        if not options.users and not options.salt_without_users:
            auth = b""
        helo = {"nonce": nonce, "auth": auth}
        if options.keepalive is not None:
            helo["keepalive"] = options.keepalive
        connection.sendall(pack(["HELO", helo], options.salts_as))
        ping = receive(connection, values)
        if ping is None:
            raise Closed("the client left")
        # "Client MUST respond to the server for authentication/authorization messages in handshake phase by sending PING"
        demand(isinstance(ping, list) and len(ping) == 6 and ping[0] == "PING", "type … equals to PING", ping)
        _, hostname, salt, digest, username, password = ping
        for name, text in (("client_hostname", hostname), ("shared_key_hexdigest", digest), ("username", username), ("password", password)):
            demand(isinstance(text, str), f"{name} … str", text)
        demand(isinstance(salt, (str, bytes)) and len(salt) > 0, "shared_key_salt … str|bin", salt)
        for name, text in (("shared_key_hexdigest", digest), ("password", password)):
            demand(not text or (len(text) == 128 and set(text) <= set("0123456789abcdef")), f"{name} … a hex string of SHA512 digest", text)
        if not auth:
            # "username is a username string for the connection, or empty string if authentication is not required", "password … likewise"
            demand((username, password) == ("", ""), "empty string if authentication is not required", (username, password))
        elif not username:
            # "password … sha512_hex(auth_salt + username + raw_password)", of which both are empty.
            demand(password == sha512_hex(auth), "sha512_hex(auth_salt + username + raw_password)", password)
        self.note(pings=ping[1:])
        key = options.shared_key.encode()
        proof = lambda name: sha512_hex(as_bytes(salt), name.encode(), nonce, key)
        if options.pong:
            connection.sendall(pack(options.pong(self, ping)))
            return
        # "shared_key_hexdigest … sha512_hex(shared_key_salt + client_hostname + nonce + shared_key)"
        if digest != proof(hostname):
            connection.sendall(pack(["PONG", False, "shared_key mismatch", "", ""]))
            # "Server MUST disconnect the connection if authentication/authorization operation fails."
            raise Closed("shared_key mismatch")
        # "password … sha512_hex(auth_salt + username + raw_password)"
        if options.users:
            known = options.users.get(username)
            if known is None or password != sha512_hex(auth, username.encode(), known.encode()):
                connection.sendall(pack(["PONG", False, "username/password mismatch", "", ""]))
                raise Closed("username/password mismatch")
        connection.sendall(pack(["PONG", True, "", options.hostname, proof(options.hostname)]))

    def transport(self, connection, message):
        # "Server MUST detect the carrier mode by inspecting the second element of the array."
        demand(isinstance(message, list) and len(message) in (2, 3), "a msgpack array", message)
        tag, entries, *rest = message
        option = rest[0] if rest else {}
        demand(isinstance(tag, str), "tag … str", tag)
        # "Client SHOULD send a MessagePackEventStream as msgpack bin format"
        demand(isinstance(entries, bytes), "entries … bin", entries)
        demand(isinstance(option, dict), "option … map", option)
        if "compressed" in option:
            # "Clients MUST send the compressed option with value gzip"
            demand(option["compressed"] == "gzip", "compressed … gzip", option)
            entries = gzip.decompress(entries)
        stream = msgpack.Unpacker(raw=False, unicode_errors="surrogateescape")
        stream.feed(entries)
        events = list(stream)
        if "size" in option:
            # "size … the number of event records in an entries by an integer"
            demand(option["size"] == len(events), "size … the number of event records", option)
        for event in events:
            demand(isinstance(event, list) and len(event) == 2, "Entry is an array representation of pairs of time and record", event)
            time, record = event
            if isinstance(time, msgpack.ExtType):
                # "EventTime uses msgpack extension format of type 0": 32 bits of seconds, 32 bits of nanoseconds
                demand(time.code == 0 and len(time.data) == 8, "EventTime Ext Format", time)
                time = struct.unpack(">II", time.data)
                demand(time[1] < 1_000_000_000, "nanosecond", time)
            else:
                demand(isinstance(time, int), "time … EventTime|Integer", time)
                time = (time, 0)
            demand(isinstance(record, dict) and all(isinstance(key, str) for key in record), "pairs of keys(String) and values(Object)", record)
            self.note(events=(tag, time, record))
        if "chunk" in option:
            # "The value is a string of Base64 representation of 128 bits unique_id"
            chunk = option["chunk"]
            demand(isinstance(chunk, str), "chunk … a string", chunk)
            try:
                decoded = base64.b64decode(chunk, validate=True)
            except binascii.Error:
                decoded = b""
            demand(len(decoded) == 16, "chunk … Base64 representation of 128 bits", chunk)
            # "The ack response value MUST be the same value given by chunk option from client."
            connection.sendall(pack({"ack": chunk}))


def receive(connection, values):
    """The next value that the client sends; none at the end of the connection."""
    while True:
        try:
            return values.unpack()
        except msgpack.OutOfData:
            data = connection.recv(1 << 16)
            if not data:
                return None
            values.feed(data)


def reflecting(server, ping):
    """In the place of a PONG: an attacker without the key gives the client's own name and digest back to it."""
    return ["PONG", True, "", ping[1], ping[3]]


def replaying(server, ping):
    """An attacker without the key gives back the name and the digest that a client sent on a connection before."""
    before = server.pings[0]
    return ["PONG", True, "", before[0], before[2]]


def replaying_as_another(server, ping):
    """The same, under another name."""
    before = server.pings[0]
    return ["PONG", True, "", before[0] + ".", before[2]]
