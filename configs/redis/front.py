"""An HTTP front of redis: POST /count counts, GET /count shows, GET /ready answers once redis does.

It starts a redis of its own in the folder DATA, which ends with it. Python's standard library only.
    python3 front.py HOST:PORT DATA
"""

import ctypes
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS, DATA = sys.argv[1:]
SOCKET = DATA + "/redis.sock"


class Redis:
    """One connection to redis, for one command after the other."""

    def __init__(self):
        self.lock, self.file = threading.Lock(), None

    def ask(self, *words):
        with self.lock:
            if self.file is None:
                connection = socket.socket(socket.AF_UNIX)
                connection.connect(SOCKET)
                self.file = connection.makefile("rwb")
            encoded = [word.encode() for word in words]
            self.file.write(b"*%d\r\n" % len(encoded))
            for word in encoded:
                self.file.write(b"$%d\r\n%s\r\n" % (len(word), word))
            self.file.flush()
            answer = self.file.readline().decode().rstrip()
            if answer.startswith("$"):
                length = int(answer[1:])
                return self.file.read(length + 2)[:length].decode() if length >= 0 else None
            if not answer or answer.startswith("-"):
                raise OSError(answer or "redis closed the connection")
            return answer[1:]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self, status, text):
        body = (text + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/count":
            self.answer(200, redis.ask("GET", "count") or "0")
        elif self.path == "/ready":
            try:
                self.answer(200, redis.ask("PING"))
            except OSError as error:
                redis.file = None
                self.answer(503, str(error))
        else:
            self.answer(404, "there is only /count")

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        # If redis is gone this breaks the connection off: the state is not known, and the sidecar loads it again.
        self.answer(200, redis.ask("INCR", "count")) if self.path == "/count" else self.answer(404, "there is only /count")

    def log_message(self, *_):
        pass


def end_with_parent():
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


redis = Redis()
# Redis need not write anything down by itself: what is durable is the log. DEBUG DIGEST is a hash of its state.
subprocess.Popen(
    ["redis-server", "--port", "0", "--unixsocket", SOCKET, "--unixsocketperm", "700", "--dir", DATA,
     "--dbfilename", "dump.rdb", "--save", "", "--appendonly", "no", "--enable-debug-command", "local"],
    preexec_fn=end_with_parent, stdout=subprocess.DEVNULL)
host, port = ADDRESS.rsplit(":", 1)
ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
