"""A counter in SQLite: POST /count adds a row and answers with its number, GET /count shows how many there are.

Its state is the folder DATA. Python's standard library only.
    python3 counter.py HOST:PORT DATA
"""

import sqlite3
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS, DATA = sys.argv[1:]

lock = threading.Lock()
database = sqlite3.connect(DATA + "/counter.db", check_same_thread=False, isolation_level=None)
# Between two requests the folder must be the whole state: no write-ahead log, no cache of pages that are not in the file.
database.execute("PRAGMA journal_mode = DELETE")
# What is durable is Segue's log, so no fsync is needed here.
database.execute("PRAGMA synchronous = OFF")
database.execute("CREATE TABLE IF NOT EXISTS visits (number INTEGER PRIMARY KEY, body TEXT)")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self, status, text):
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/count":
            with lock:
                self.answer(200, database.execute("SELECT count(*) FROM visits").fetchone()[0])
        else:
            self.answer(200 if self.path == "/ready" else 404, "there is /count")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if self.path != "/count":
            return self.answer(404, "there is only /count")
        with lock:
            self.answer(200, database.execute("INSERT INTO visits (body) VALUES (?)", (body,)).lastrowid)

    def log_message(self, *_):
        pass


host, port = ADDRESS.rsplit(":", 1)
ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
