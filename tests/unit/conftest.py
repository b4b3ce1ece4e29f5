"""What unit tests share."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import pytest


class Query(dict):
    """The query of a request: the last value of each name, and all of them.

    :ivar pairs: names and values in their order.
    """

    def __init__(self, pairs):
        super().__init__(pairs)
        self.pairs = list(pairs)


@pytest.fixture
def serve():
    """Serve HTTP on loopback: ``serve(answer)`` returns the URL.

    ``answer(method, path, query, body)`` returns a status and what is sent as JSON; a text is sent as it is.
    """
    with contextlib.ExitStack() as stack:

        def serve(answer):
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self):
                    parts = urlsplit(self.path)
                    body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                    status, found = answer(self.command, parts.path, Query(parse_qsl(parts.query)), body)
                    data = (found if isinstance(found, str) else json.dumps(found)).encode()
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

                do_POST = do_PATCH = do_GET  # noqa: N815 - http.server's names

                def log_message(self, *_):
                    pass

            listening = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(listening.shutdown)
            return f"http://127.0.0.1:{listening.server_port}"

        yield serve
