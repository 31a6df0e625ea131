"""libcurl over HTTP/3 alone: fetches `down.test/big`, sends a file to `up.test`."""
import hashlib
import io
import os
import sys

import pycurl

HTTP3_ONLY = 31


def curl(port, roots, name):
    curl = pycurl.Curl()
    curl.setopt(curl.URL, f"https://{name}:{port}/big")
    curl.setopt(curl.HTTP_VERSION, HTTP3_ONLY)
    curl.setopt(curl.CAINFO, f"{roots}/{name}.pem")
    curl.setopt(curl.RESOLVE, [f"{name}:{port}:127.0.0.1"])
    return curl


port, roots, file = sys.argv[1:]
digest = hashlib.sha256()
down = curl(port, roots, "down.test")
down.setopt(down.WRITEFUNCTION, digest.update)
down.perform()
print("down", down.getinfo(down.RESPONSE_CODE), digest.hexdigest(), flush=True)
answer = io.BytesIO()
up = curl(port, roots, "up.test")
with open(file, "rb") as body:
    up.setopt(up.UPLOAD, 1)
    up.setopt(up.READDATA, body)
    up.setopt(up.INFILESIZE_LARGE, os.path.getsize(file))
    up.setopt(up.WRITEDATA, answer)
    up.perform()
print("up", up.getinfo(up.RESPONSE_CODE), answer.getvalue().decode(), flush=True)
