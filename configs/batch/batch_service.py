#!/usr/bin/env python3
"""A service with a batch endpoint, Python standard library only: batch_service.py HOST:PORT

It keeps lines of text. POST /add adds one, GET /count counts them; GET and PUT /state save and load them; POST /batch takes many
requests at once, in the form of README.md beside this file. Every reply is made by handle(), alone or in a batch.
"""

import base64
import json
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BATCH = "application/vnd.segue.batch+ndjson; version=1"
JSON = [["content-type", "application/json"]]

lines = []
lock = threading.Lock()


def reply_json(status, value):
    return status, JSON, json.dumps(value, separators=(",", ":")).encode()


def handle(method, path, body):
    """One request: status, headers, content. Deterministic: it depends on the lines so far and on the request only."""
    if (method, path) == ("POST", "/add"):
        if b"\n" in body or not body:
            return reply_json(400, {"error": "one line, please"})
        lines.append(body)
        return reply_json(200, {"n": len(lines), "crc": zlib.crc32(b"\n".join(lines[-2:]))})
    if (method, path) == ("POST", "/forget"):
        lines.clear()
        return 204, [], b""
    if (method, path) == ("GET", "/count"):
        return reply_json(200, {"n": len(lines)})
    return reply_json(404, {"error": f"there is no {method} {path}"})


def batch(content):
    """Many requests, one line each; as many replies."""
    replies = []
    for line in content.splitlines():
        request = json.loads(line)
        body = base64.b64decode(request["body64"]) if "body64" in request else request.get("body", "").encode()
        status, headers, answer = handle(request["method"], request["path"], body)
        reply = {"status": status, "headers": headers}
        try:
            reply["body"] = answer.decode()
        except UnicodeDecodeError:
            reply["body64"] = base64.b64encode(answer).decode()
        replies.append(json.dumps(reply) + "\n")
    return "".join(replies).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        with lock:
            status, headers, answer = self.route(body)
        # Without the Date and Server that send_response() adds.
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.wfile.flush()

    def route(self, body):
        global lines
        match (self.command, self.path):
            case ("GET", "/ready"):
                return 200, [], b"ready\n"
            case ("GET", "/state"):
                # The whole state at once: it is that of the header, and equal states give equal bytes.
                return 200, [["segue-snapshot", "fixed, canonical"]], b"".join(line + b"\n" for line in lines)
            case ("PUT", "/state"):
                lines = body.split(b"\n")[:-1]
                return 204, [], b""
            case ("POST", "/batch"):
                return 200, [["content-type", BATCH]], batch(body)
            case (method, path):
                return handle(method, path, body)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = answer

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    host, port = sys.argv[1].rsplit(":", 1)
    ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
