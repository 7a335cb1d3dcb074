#!/usr/bin/env python3
"""A client of tokenfwd RPC, written from protocol/tokenfwd-rpc.md alone, with Python's standard library alone.

    rpc-client.py SOCKET keys                                    prints the snapshot's keys as JSON
    rpc-client.py SOCKET sign KEY [PURPOSE] < data > signature   KEY is a pkcs11: URI or a fingerprint in hex

It takes the careful way: the magic alone first, everything else in one flight when the agent's has come.
"""
import json
import socket
import struct
import sys

MAGIC = bytes.fromhex("f4746f6b66776401")
MAX_FRAME = 1048576


class Broken(Exception):
    """The other end does not keep to the protocol."""


def pack(value):
    """A value as msgpack, in the shortest format."""
    if value is None:
        return b"\xc0"
    if value is True or value is False:
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        if not 0 <= value < 1 << 64:
            raise ValueError("a number that the protocol does not have")
        if value < 0x80:
            return bytes([value])
        for head, form, bits in ((0xCC, ">B", 8), (0xCD, ">H", 16), (0xCE, ">I", 32), (0xCF, ">Q", 64)):
            if value < 1 << bits:
                return bytes([head]) + struct.pack(form, value)
    if isinstance(value, str):
        text = value.encode()
        return sized(len(text), 0xA0, 32, (0xD9, 0xDA, 0xDB)) + text
    if isinstance(value, (bytes, bytearray)):
        return sized(len(value), 0, 0, (0xC4, 0xC5, 0xC6)) + bytes(value)
    if isinstance(value, (list, tuple)):
        return sized(len(value), 0x90, 16, (None, 0xDC, 0xDD)) + b"".join(map(pack, value))
    if isinstance(value, dict):
        return sized(len(value), 0x80, 16, (None, 0xDE, 0xDF)) + b"".join(pack(k) + pack(v) for k, v in value.items())
    raise TypeError(type(value))


def sized(length, fix, below, heads):
    if length < below:
        return bytes([fix | length])
    for head, form, bits in zip(heads, (">B", ">H", ">I"), (8, 16, 32)):
        if head is not None and length < 1 << bits:
            return bytes([head]) + struct.pack(form, length)
    raise ValueError("too long")


class Reader:
    """Reads msgpack forward through one body."""

    def __init__(self, body):
        self.body, self.at = body, 0

    def take(self, length):
        if length > len(self.body) - self.at:
            raise Broken("a message that ends too early")
        self.at += length
        return self.body[self.at - length : self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def value(self, depth=1):
        if depth > 17:
            raise Broken("nested too deep")
        head = self.number(">B")
        if head <= 0x7F:
            return head
        if head <= 0x8F:
            return self.map(head & 0x0F, depth)
        if head <= 0x9F:
            return [self.value(depth + 1) for _ in range(head & 0x0F)]
        if head <= 0xBF:
            return self.take(head & 0x1F).decode()
        if head in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[head]
        width = ">" + "BHIQ"[head & 3]
        if 0xC4 <= head <= 0xC6:
            return self.take(self.number(">" + "BHI"[head - 0xC4]))
        if 0xCC <= head <= 0xCF:
            return self.number(width)
        if 0xD0 <= head <= 0xD3:
            number = self.number(width.lower())
            if number < 0:
                raise Broken("a negative number")
            return number
        if 0xD9 <= head <= 0xDB:
            return self.take(self.number(">" + "BHI"[head - 0xD9])).decode()
        if head in (0xDC, 0xDD):
            return [self.value(depth + 1) for _ in range(self.number(">" + "HI"[head - 0xDC]))]
        if head in (0xDE, 0xDF):
            return self.map(self.number(">" + "HI"[head - 0xDE]), depth)
        raise Broken("a type that the protocol does not have")

    def map(self, count, depth):
        found = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, str) or key in found:
                raise Broken("a key that is no text, or stands twice")
            found[key] = self.value(depth + 1)
        return found


def frame(message):
    body = pack(message)
    return struct.pack(">I", len(body)) + body


class Client:
    """One connection. Requests are sent together; answers are awaited by id, in any order."""

    def __init__(self, path, timeout=60):
        self.stream = socket.socket(socket.AF_UNIX)
        self.stream.settimeout(timeout)
        self.stream.connect(path)
        self.answers = {}
        self.stream.sendall(MAGIC)
        if self.read(1) != MAGIC[:1] or self.read(7) != MAGIC[1:]:
            raise Broken("no tokenfwd agent answers there")

    def read(self, length):
        data = b""
        while len(data) < length:
            piece = self.stream.recv(length - len(data))
            if piece == b"":
                raise Broken("the connection has ended")
            data += piece
        return data

    def send(self, *messages):
        self.stream.sendall(b"".join(map(frame, messages)))

    def answer(self, wanted):
        while wanted not in self.answers:
            (length,) = struct.unpack(">I", self.read(4))
            if not 1 <= length <= MAX_FRAME:
                raise Broken("a frame of no possible length")
            reader = Reader(self.read(length))
            message = reader.value()
            if not isinstance(message, dict) or reader.at != length:
                raise Broken("a message that is not one map")
            if message.get("type") == "error" and message.get("id") is None:
                raise Broken("%s: %s" % (message["code"], message["message"]))
            if message.get("type") in ("result", "error"):
                self.answers[message["id"]] = message
        message = self.answers.pop(wanted)
        if message["type"] == "error":
            sys.exit("%s: %s%s" % (message["code"], message["message"], " rv 0x%x" % message["rv"] if message.get("rv") else ""))
        return message


def main(path, command, key=None, purpose="data"):
    client = Client(path)
    hello = {"type": "hello", "id": 1, "versions": [1], "client": "rpc-client.py", "snapshot": command == "keys"}
    if command == "keys":
        client.send(hello)
        snapshot = client.answer(1)["snapshot"]
        keys = [key for token in snapshot["tokens"] for key in token["keys"]]
        print(json.dumps(keys, default=bytes.hex))
        return
    choice = {"uri": key} if key.startswith("pkcs11:") else {"spki": bytes.fromhex(key)}
    sign = {"type": "sign", "id": 2, "key": choice, "data": sys.stdin.buffer.read(), "purpose": purpose}
    client.send(hello, sign)
    client.answer(1)
    sys.stdout.buffer.write(client.answer(2)["signature"])


if __name__ == "__main__":
    main(*sys.argv[1:])
