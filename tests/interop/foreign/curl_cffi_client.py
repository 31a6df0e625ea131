"""libcurl with BoringSSL over HTTP/3 alone: fetches `down.test/big`, sends a file to `up.test`."""
import hashlib
import io
import os
import sys

from curl_cffi import Curl, CurlHttpVersion, CurlInfo, CurlOpt


def curl(port, roots, name):
    curl = Curl()
    curl.setopt(CurlOpt.URL, f"https://{name}:{port}/big".encode())
    curl.setopt(CurlOpt.HTTP_VERSION, CurlHttpVersion.V3ONLY)
    curl.setopt(CurlOpt.CAINFO, f"{roots}/{name}.pem".encode())
    curl.setopt(CurlOpt.RESOLVE, [f"{name}:{port}:127.0.0.1".encode()])
    return curl


port, roots, file = sys.argv[1:]
digest = hashlib.sha256()
down = curl(port, roots, "down.test")
down.setopt(CurlOpt.WRITEFUNCTION, digest.update)
down.perform()
print("down", down.getinfo(CurlInfo.RESPONSE_CODE), digest.hexdigest(), flush=True)
answer = io.BytesIO()
up = curl(port, roots, "up.test")
with open(file, "rb") as body:
    up.setopt(CurlOpt.UPLOAD, 1)
    up.setopt(CurlOpt.READFUNCTION, body.read)
    up.setopt(CurlOpt.INFILESIZE_LARGE, os.path.getsize(file))
    up.setopt(CurlOpt.WRITEDATA, answer)
    up.perform()
print("up", up.getinfo(CurlInfo.RESPONSE_CODE), answer.getvalue().decode(), flush=True)
