// An upstream that speaks HTTP/2 without TLS (Node's own): tells what it was asked.
"use strict";
const http2 = require("node:http2");
const { createHash } = require("node:crypto");
let sessions = 0;
const server = http2.createServer();
server.on("session", () => { sessions += 1; });
server.on("stream", (stream, fields) => {
  const digest = createHash("sha256");
  stream.on("error", () => {});
  if (fields[":path"] === "/resets") {
    stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
    return;
  }
  stream.on("data", (part) => digest.update(part));
  stream.on("end", () => {
    const told = { method: fields[":method"], path: fields[":path"], authority: fields[":authority"], sessions };
    stream.respond({ ":status": 200, "content-type": "application/json" });
    stream.end(JSON.stringify({ ...told, via: fields.via, digest: digest.digest("hex") }));
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
