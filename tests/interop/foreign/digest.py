"""An upstream that answers with the SHA-256 and the length of what it was sent."""
import hashlib
import http.server


class Digest(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def parts(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline(), 16):
                while size:
                    part = self.rfile.read1(min(size, 1 << 16))
                    if not part:
                        raise ConnectionError("the body broke off")
                    size -= len(part)
                    yield part
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        left = int(self.headers.get("Content-Length", 0))
        while left:
            part = self.rfile.read1(min(left, 1 << 16))
            if not part:
                raise ConnectionError("the body broke off")
            left -= len(part)
            yield part

    def do_PUT(self):
        digest, length = hashlib.sha256(), 0
        for part in self.parts():
            digest.update(part)
            length += len(part)
        answer = f"{digest.hexdigest()} {length}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_PUT

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Digest)
print(server.server_address[1], flush=True)
server.serve_forever()
