"""A service as many are: uuid, time, random and the order of a set in its replies and its state. Standard library only.

Replayed on another node it answers otherwise, so strategy `live` ends as `diverged` and names the first part that differs.
It has two ways on: take time and randomness from the request (--segue, below), or move by strategy `precopy`, which carries
the state and replays nothing.

    python3 nondeterministic.py HOST:PORT [--segue]

POST /notes (a text) stores a note and answers it; GET /notes shows all. GET and PUT /segue/state save and load everything.
"""

import json
import random
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOCK = threading.Lock()
NOTES = []  # The whole state.
SEGUE = "--segue" in sys.argv


def note(text, headers):
    """A note as it is stored and answered."""
    if SEGUE:
        # The same in every replica, live and in replay.
        now = int(headers["Segue-Time"]) / 1000
        dice = random.Random(headers["Segue-Seed"])
        name = uuid.UUID(int=dice.getrandbits(128), version=4)
        words = sorted(set(text.split()))
    else:
        now, dice, name = time.time(), random, uuid.uuid4()
        words = list(set(text.split()))
    return {"id": str(name), "at": now, "lucky": dice.randrange(1000), "words": words}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self):
        if self.path == "/segue/state":
            with LOCK:
                state = json.dumps(NOTES, sort_keys=True).encode()
            # Copied under the lock, and in one form: requests may follow at once, and equal states give equal bytes.
            self.answer(200, state, {"Segue-Snapshot": "fixed, canonical"})
        elif self.path == "/notes":
            with LOCK:
                self.answer(200, json.dumps(NOTES).encode())
        elif self.path == "/ready":
            self.answer(200, b"ready\n")
        else:
            self.answer(404, b"no such path\n")

    def do_PUT(self):
        body = self.body()
        if self.path != "/segue/state":
            self.answer(404, b"no such path\n")
        elif body is not None:
            with LOCK:
                NOTES[:] = json.loads(body) if body else []
            self.answer(200, b"loaded\n")

    def do_POST(self):
        body = self.body()
        if self.path != "/notes":
            self.answer(404, b"no such path\n")
        elif body is not None:
            with LOCK:
                NOTES.append(note(body.decode(errors="replace"), self.headers))
                reply = json.dumps(NOTES[-1]).encode()
            self.answer(200, reply)

    def body(self):
        """The whole body; None if the sender broke off: then nothing is changed and nothing answered."""
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) == length:
            return body
        self.close_connection = True
        return None

    def answer(self, status, body, headers=None):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    host, port = sys.argv[1].rsplit(":", 1)
    ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
