"""An upstream whose paths behave well or badly, on raw sockets, so that every byte is chosen here.

Prints its port; with an argument, listens on the unix socket of that name instead.
"""
import base64
import collections
import hashlib
import socket
import struct
import sys
import threading

seen = collections.Counter()
gates = collections.defaultdict(lambda: threading.Semaphore(0))


class Gone(Exception):
    pass


class Connection:
    def __init__(self, sock):
        self.sock, self.file, self.served = sock, sock.makefile("rb"), 0

    def line(self):
        line = self.file.readline()
        if not line.endswith(b"\n"):
            raise Gone
        return line.rstrip(b"\r\n")

    def chunks(self, fields):
        """The body, part by part, as it comes."""
        if b"chunked" in fields.get(b"transfer-encoding", b""):
            while size := int(self.line(), 16):
                yield self.file.read(size)
                self.line()
            while self.line():
                pass
        elif length := int(fields.get(b"content-length", 0)):
            yield self.file.read(length)

    def send(self, *parts):
        self.sock.sendall(b"".join(parts))

    def chunk(self, part):
        self.send(b"%x\r\n" % len(part), part, b"\r\n")

    def answer(self, text):
        self.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text), text)

    def begin(self, kind=b"text/plain"):
        self.send(b"HTTP/1.1 200 OK\r\nContent-Type: ", kind, b"\r\nTransfer-Encoding: chunked\r\n\r\n")

    def run(self):
        try:
            while True:
                method, target, _ = self.line().split(b" ")
                fields = {}
                while line := self.line():
                    name, _, value = line.partition(b":")
                    fields[name.lower()] = value.strip()
                path = target.partition(b"?")[0].decode()
                if not path.startswith(("/seen/", "/next/")):
                    seen[target.decode()] += 1
                self.one(method, path, target.decode(), fields)
                self.served += 1
        except (Gone, OSError, ValueError):
            pass
        finally:
            self.file.close()
            self.sock.close()

    def one(self, method, path, target, fields):
        if path.startswith("/seen/"):
            return self.answer(b"%d" % seen[target.removeprefix("/seen")])
        if path.startswith("/next/"):
            gates[target.removeprefix("/next")].release()
            return self.answer(b"")
        if path == "/ws":
            return self.websocket(fields)
        if path == "/echo":
            # Answers part by part, before it has the whole.
            self.begin()
            for part in self.chunks(fields):
                self.chunk(part)
            return self.chunk(b"")
        if path == "/dies-when-kept" and self.served:
            # The request has come on a connection that was used before.
            raise Gone
        if path == "/dies/early":
            # Without reading the body.
            raise Gone
        for _ in self.chunks(fields):
            pass
        if path == "/events":
            self.begin(b"text/event-stream")
            for number in range(5):
                self.chunk(b"data: %d\n\n" % number)
                gates[target].acquire()
            return self.chunk(b"")
        if path == "/leaves":
            # Notes when the other side is gone.
            self.begin()
            self.chunk(b"hello")
            if not self.file.read(1):
                seen[target.replace("/leaves", "/left")] += 1
            raise Gone
        if path == "/slow":
            gates[target].acquire()
            raise Gone
        if path == "/dies/before":
            raise Gone
        if path == "/dies/header":
            self.send(b"HTTP/1.1 200 OK\r\nContent-Le")
            raise Gone
        if path == "/dies/body":
            self.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789")
            raise Gone
        if path == "/dies/chunk":
            self.begin()
            self.chunk(b"0123456789")
            self.send(b"ff\r\n01234")
            raise Gone
        if path == "/fields":
            return self.answer(b"".join(b"%s: %s\n" % field for field in fields.items()))
        self.answer(method + b" " + path.encode())

    def websocket(self, fields):
        """RFC 6455: echoes frames until a close frame."""
        key = fields[b"sec-websocket-key"] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key).digest())
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.send(head, b"Sec-WebSocket-Accept: ", accept, b"\r\n\r\n")
        while True:
            head = self.file.read(2)
            if not head:
                seen["/left-socket"] += 1
                raise Gone
            first, second = head
            length = second & 127
            if length == 126:
                (length,) = struct.unpack(">H", self.file.read(2))
            mask = self.file.read(4)
            data = bytes(byte ^ mask[i % 4] for i, byte in enumerate(self.file.read(length)))
            size = bytes([length]) if length < 126 else b"\x7e" + struct.pack(">H", length)
            self.send(bytes([first]), size, data)
            if first & 15 == 8:
                raise Gone


if len(sys.argv) > 1:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
else:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
listener.listen(64)
print(0 if len(sys.argv) > 1 else listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=Connection(listener.accept()[0]).run, daemon=True).start()
