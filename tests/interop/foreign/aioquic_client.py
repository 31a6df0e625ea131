"""aioquic over HTTP/3: fetches `down.test/big`, sends a file to `up.test`."""
import asyncio
import hashlib
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated


class Client(QuicConnectionProtocol):
    """One request."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.http = H3Connection(self._quic)
        self.done = asyncio.get_running_loop().create_future()
        self.digest, self.start, self.status = hashlib.sha256(), b"", None

    def quic_event_received(self, event):
        for part in self.http.handle_event(event):
            if isinstance(part, HeadersReceived) and self.status is None:
                self.status = dict(part.headers)[b":status"].decode()
            if isinstance(part, DataReceived):
                self.digest.update(part.data)
                self.start = (self.start + part.data)[:200]
            if getattr(part, "stream_ended", False) and not self.done.done():
                self.done.set_result(None)
        if isinstance(event, ConnectionTerminated) and not self.done.done():
            self.done.set_exception(ConnectionError(event.reason_phrase))

    async def ask(self, method, name, body=None):
        stream = self._quic.get_next_available_stream_id()
        fields = [(b":method", method), (b":scheme", b"https"), (b":authority", name.encode()), (b":path", b"/big")]
        self.http.send_headers(stream, fields, end_stream=body is None)
        self.transmit()
        while body:
            part = body.read(1 << 16)
            self.http.send_data(stream, part, end_stream=not part)
            self.transmit()
            if not part:
                break
            # Not more in memory than the server takes.
            while len(self._quic._streams[stream].sender._buffer) > 1 << 20 and not self.done.done():
                await asyncio.sleep(0.001)
        await self.done


async def request(method, port, roots, name, body=None):
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name=name)
    configuration.max_data = configuration.max_stream_data = 8 << 20
    configuration.load_verify_locations(f"{roots}/{name}.pem")
    async with connect("127.0.0.1", port, configuration=configuration, create_protocol=Client) as client:
        await client.ask(method, f"{name}:{port}", body)
    return client


async def main():
    port, roots, file = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    down = await request(b"GET", port, roots, "down.test")
    print("down", down.status, down.digest.hexdigest(), flush=True)
    with open(file, "rb") as body:
        up = await request(b"PUT", port, roots, "up.test", body)
    print("up", up.status, up.start.decode(), flush=True)


asyncio.run(main())
