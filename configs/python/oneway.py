"""A service that answers only 204: its replies tell nothing about its state. Standard library only.

Its saves show a set as it comes, so equal states give different bytes, and nothing proves that source and target are equal:
a migration ends as `unproven` and is refused by default. Two steps make it movable, and show what each finds:

    --canonical    saves in one form: now the states are compared. They differ, because each event is stored with the time at
                   which it was handled, so the migration ends as `diverged` although all replies agree.
    --segue        stores Segue-Time, the time of the request's record, instead: the states are equal, and proven so.

    python3 oneway.py HOST:PORT [--canonical] [--segue]

POST /events (a text) stores an event. GET and PUT /segue/state save and load everything.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOCK = threading.Lock()
EVENTS = set()  # The whole state: pairs of time and text.
CANONICAL = "--canonical" in sys.argv
SEGUE = "--segue" in sys.argv


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self):
        if self.path == "/segue/state":
            with LOCK:
                events = sorted(EVENTS) if CANONICAL else list(EVENTS)
            self.answer(200, json.dumps(events).encode(), "fixed, canonical" if CANONICAL else "fixed")
        elif self.path == "/ready":
            self.answer(200, b"ready\n")
        else:
            self.answer(404, b"no such path\n")

    def do_PUT(self):
        body = self.body()
        if self.path != "/segue/state":
            self.answer(404, b"no such path\n")
        elif body is not None:
            loaded = {tuple(event) for event in json.loads(body)} if body else set()
            with LOCK:
                EVENTS.clear()
                EVENTS.update(loaded)
            self.answer(200, b"loaded\n")

    def do_POST(self):
        body = self.body()
        if self.path != "/events":
            self.answer(404, b"no such path\n")
        elif body is not None:
            at = self.headers["Segue-Time"] if SEGUE else str(time.time_ns())
            with LOCK:
                EVENTS.add((at, body.decode(errors="replace")))
            self.answer(204)

    def body(self):
        """The whole body; None if the sender broke off: then nothing is changed and nothing answered."""
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) == length:
            return body
        self.close_connection = True
        return None

    def answer(self, status, body=b"", snapshot=None):
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        if snapshot:
            self.send_header("Segue-Snapshot", snapshot)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    host, port = sys.argv[1].rsplit(":", 1)
    ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
