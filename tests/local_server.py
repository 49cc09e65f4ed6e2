"""A web server for tests, on 127.0.0.1, that can be told to misbehave."""

import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


class LocalServer:
    """Answers with `files[path]`; `asked` lists (path, first byte, bytes sent) of every request.

    `patience`: bytes after which it hangs up; `ranges`: whether it knows them; `tag`: the ETag;
    `refuse`: path -> statuses to answer with before anything else, one a request; `headers`: more
    of them; `delay`: an event that is waited for."""

    def __init__(self):
        self.files, self.asked, self.refuse, self.headers = {}, [], {}, {}
        self.patience, self.ranges, self.tag, self.delay = None, True, '"1"', threading.Event()
        self.delay.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                with suppress(ConnectionError):  # who asked has hung up, as some tests do
                    outer._answer(self)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, request) -> None:
        path = unquote(request.path)
        self.delay.wait(10)
        data = self.files.get(path)
        status = self.refuse[path].pop(0) if self.refuse.get(path) else 0
        if status or data is None:
            self.asked.append((path, 0, 0))
            return request.send_error(status or 404)
        first = int(request.headers.get("Range", "bytes=0-")[6:-1]) if self.ranges else 0
        if request.headers.get("If-Range", self.tag) != self.tag:
            first = 0
        if first >= len(data) > 0:
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(data)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            self.asked.append((path, first, 0))
            return None
        request.send_response(206 if first else 200)
        for name, value in {"ETag": self.tag, **self.headers}.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(data) - first))
        if first:
            request.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        request.end_headers()
        sent = data[first:] if self.patience is None else data[first : first + self.patience]
        self.asked.append((path, first, len(sent)))
        request.wfile.write(sent)
        return None

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
