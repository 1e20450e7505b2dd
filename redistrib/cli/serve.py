"""`redistrib serve`: the page of a plan with fields to change it, for this machine alone.

Every request is answered from its query; nothing is kept and no file is read. The server answers
GET and HEAD of `/` for its own names only, so that no page from elsewhere reaches it under another.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore
from urllib.parse import urlsplit

import click

from redistrib.cli.form import MAX_QUERY, answer
from redistrib.cli.options import examples

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
AT_ONCE = 4
"""Requests that are planned at once; the others wait."""
PATIENCE = 10.0
"""Seconds that a client has for its request, and that one waits for its turn."""
MAX_UNREAD = 1 << 20
"""Bytes of a request that are still taken, unread, once it is answered."""
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Connection": "close",
}


@click.command(epilog=examples("serve", "serve --port 0"))
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8471, show_default=True)
def serve(host: str, port: int) -> int:
    """Serve the page of a plan, with fields to change it, on this machine. Ctrl-C ends it."""
    with PlanServer(host, port) as server:
        click.echo(f"{server.url} (Ctrl-C ends it)", err=True)
        if host not in (*LOOPBACK, "::1"):
            click.echo("redistrib serve: other machines can reach this address", err=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


class PlanServer(ThreadingHTTPServer):
    """The server on an address; port 0 is any that is free. Raises OSError where it is taken."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Request)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.server_port}/"
        names = (*LOOPBACK, shown)
        self.names = {*names, *(f"{name}:{self.server_port}" for name in names)}
        self.turns = BoundedSemaphore(AT_ONCE)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """A client that is gone is no error of the server's; anything else is told in one line."""
        error = sys.exception()
        if not isinstance(error, OSError):
            click.echo(f"redistrib serve: {type(error).__name__}: {error}", err=True)


class _Request(BaseHTTPRequestHandler):
    """One request, and then the connection is closed."""

    server: PlanServer
    raw_requestline: bytes  # as the standard library read it
    server_version = "redistrib"
    sys_version = ""
    timeout = PATIENCE
    default_request_version = "HTTP/1.0"  # a request without a version gets headers too

    def parse_request(self) -> bool:
        """Whether a request can be read; the standard library says nothing to a blank line."""
        if self.raw_requestline.strip():
            return super().parse_request()
        self.command, self.requestline = "", ""
        self.request_version = self.default_request_version
        self.send_error(HTTPStatus.BAD_REQUEST, "a request begins with a line")
        return False

    def do_GET(self) -> None:
        """Answer a query; 4xx for anything but one of this server's own page."""
        host = self.headers.get_all("Host", [])
        if len(host) != 1:
            self.send_error(HTTPStatus.BAD_REQUEST, "a request names one host")
        elif host[0].lower() not in self.server.names:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "this server answers for itself only")
        elif self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.send_error(HTTPStatus.BAD_REQUEST, "a request has no body")
        elif len(self.path) > MAX_QUERY + 2:
            self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
        elif not self.path.startswith("/") or urlsplit(self.path).path != "/":
            self.send_error(HTTPStatus.NOT_FOUND, "there is one page, /")
        else:
            self._answer(urlsplit(self.path).query)

    do_HEAD = do_GET  # noqa: N815 - likewise

    def _answer(self, query: str) -> None:
        if not self.server.turns.acquire(timeout=PATIENCE):
            self.send_error(HTTPStatus.TOO_MANY_REQUESTS)
            return
        try:
            status, page = answer(query)
        finally:
            self.server.turns.release()
        self._send(status, page)

    def _send(self, status: int, page: str) -> None:
        body = page.encode()
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Say what is wrong with a request: whatever it is, it is the request's fault."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            code = HTTPStatus.METHOD_NOT_ALLOWED
        elif code >= HTTPStatus.INTERNAL_SERVER_ERROR:  # a version of HTTP that there is not
            code = HTTPStatus.BAD_REQUEST
        self.close_connection = True
        body = f"{int(code)} {HTTPStatus(code).phrase}: {message or ''}\n".encode()
        self.send_response(code)
        for name, value in {**HEADERS, "Content-Type": "text/plain; charset=utf-8"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        self.wfile.write(body)

    def finish(self) -> None:
        """Let a client that still sends hear the answer: closing at once would cut it off."""
        super().finish()
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(1)
            left = MAX_UNREAD
            while left > 0 and (part := self.connection.recv(1 << 16)):
                left -= len(part)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing of requests."""
