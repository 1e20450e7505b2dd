"""`redistrib serve`: the page, errors beside their fields, and requests that are none."""

from __future__ import annotations

import http.client
import random
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

import redistrib as rd
from redistrib.cli.form import EXAMPLE, MAX_QUERY, answer
from redistrib.cli.serve import PlanServer

OPENED: list[str] = []
"""Files that other threads than the first opened: those of the server."""


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and threading.current_thread() is not threading.main_thread():
        OPENED.append(str(arguments[0]))


sys.addaudithook(_note)


@pytest.fixture(scope="module")
def server() -> Iterator[PlanServer]:
    with PlanServer("127.0.0.1", 0) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(server: PlanServer, raw: bytes) -> tuple[int, bytes]:
    """The status and all of the answer to the bytes of a request."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        whole = b""
        while part := connection.recv(1 << 16):
            whole += part
    head = whole.split(b"\r\n", 1)[0].split()
    return int(head[1]), whole


def get(server: PlanServer, target: str, host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    headers = {} if host is None else {"Host": host}
    connection.request("GET", target, headers=headers)
    response = connection.getresponse()
    text = response.read().decode()
    if response.status == 200:
        assert "default-src 'none'" in response.getheader("Content-Security-Policy", "")
    connection.close()
    return response.status, text


def test_the_page_states_a_problem_and_its_plan(server: PlanServer) -> None:
    status, page = get(server, "/")
    assert status == 200
    mesh = rd.Mesh(EXAMPLE["mesh"])
    ends = (rd.ArrayType.parse(EXAMPLE[end], mesh) for end in ("src", "dst"))
    for t in rd.plan(*ends, strategy="collectives").types:
        assert str(t) in page
    asked = {
        "mesh": "x=8",
        "shape": "64,64",
        "dtype": "bf16",
        "src": "P('x')",
        "dst": "{replicated}",
    }
    status, page = get(server, f"/?{urlencode({**asked, 'dst_mesh': '', 'memory_limit': ''})}")
    assert status == 200
    assert "all_gather" in page
    assert page.count("<style>") == 1


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"mesh": "x=2,"}, "mesh", "expected"),
        ({"mesh": "x=5000"}, "mesh", "at most 4096 devices"),
        ({"mesh": ""}, "mesh", "needed"),
        ({"src": "f32[8{z}]"}, "src", "unknown axis"),
        ({"dst": "f32[8"}, "dst", "column"),
        ({"dst": "f32[8]"}, "dst", "shape"),
        ({"src": "P('x')", "dst": "P('y')"}, "src", "give shape and dtype"),
        ({"memory_limit": "5"}, "memory_limit", "limit"),
        ({"memory_limit": "much"}, "memory_limit", "size"),
        ({"strategy": "best"}, "strategy", "unknown strategy"),
        ({"profile": "/etc/passwd"}, "profile", "unknown profile"),
        ({"profile": "tpu-v5"}, "profile", "did you mean"),
        ({"shape": "<b>"}, "shape", "&lt;b&gt;"),
        ({"dtype": "f31"}, "dtype", "f31"),
    ],
)
def test_an_error_stands_beside_its_field(change: dict[str, str], field: str, said: str) -> None:
    status, page = answer(urlencode({**EXAMPLE, **change}))
    assert status == 400
    assert page.count('role="alert"') == 1
    error = page.partition(f'id="{field}-error"')[2].partition("</div>")[0]
    assert said in error
    assert "<b>" not in page


def test_errors_stand_beside_every_field_at_fault() -> None:
    page = answer(urlencode({**EXAMPLE, "src": "f32[", "profile": "x", "memory_limit": "x"}))[1]
    assert all(f'id="{name}-error"' in page for name in ("src", "profile", "memory_limit"))


@pytest.mark.parametrize("query", ["a=1", "mesh=x&mesh=y", "%ff=1", "&".join(["mesh=x"] * 99)])
def test_what_is_no_query_of_the_form(query: str) -> None:
    assert answer(query)[0] == 400


def test_what_is_too_long() -> None:
    assert answer("mesh=" + "x" * MAX_QUERY)[0] == 414
    assert answer("mesh=" + "x" * 3000)[0] == 413


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "LOCALHOST", "[::1]"])
def test_its_own_names_are_answered(server: PlanServer, host: str) -> None:
    assert get(server, "/", host)[0] == 200
    assert get(server, "/", f"{host}:{server.server_port}")[0] == 200


@pytest.mark.parametrize(
    "host", ["example.org", "localhost.example.org", "127.0.0.1:1", "", "10.0.0.1"]
)
def test_other_hosts_are_refused(server: PlanServer, host: str) -> None:
    assert get(server, "/", host)[0] == 421


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GET /\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\nHost: localhost\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", 405),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", 400),
        ("GET /etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        ("GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        ("GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        ("GET //localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (f"GET /?{'x' * 9000} HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (f"GET /?{'x' * 99000} HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (f"GET / HTTP/1.1\r\nHost: localhost\r\nX: {'x' * 99000}\r\n\r\n", 431),
        ("GET / HTTP/1.1\r\nHost: localhost\r\n" + "X: x\r\n" * 200 + "\r\n", 431),
        ("\x00\x01\x02\r\n\r\n", 400),
    ],
)
def test_requests_that_are_none(server: PlanServer, request_text: str, status: int) -> None:
    assert ask(server, request_text.encode("latin-1"))[0] == status


def test_malformed_and_oversized_requests_give_4xx_and_read_no_file(server: PlanServer) -> None:
    get(server, "/?" + urlencode({**EXAMPLE, "profile": "tpu-v5e"}))  # what is read once is read
    OPENED.clear()
    rng = random.Random(0)
    valid = f"GET /?{urlencode(EXAMPLE)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    files = ("../../etc/passwd", "/etc/passwd", "file:///etc/passwd", str(Path(__file__)))
    for _ in range(1000):
        match rng.randrange(5):
            case 0:  # bytes
                raw = rng.randbytes(rng.randrange(1, 300)) + b"\r\n\r\n"
            case 1:  # a valid request with a part cut out of its first line
                at = rng.randrange(1, 12)
                raw = b"X" + valid[at + rng.randrange(1, 9) :]
            case 2:  # oversized
                size = rng.randrange(9000, 200000)
                raw = b"GET /?mesh=" + b"x" * size + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
            case 3:  # files, as a path or as a field
                name = rng.choice(files)
                field = rng.choice((*EXAMPLE, "profile", "dtype", "shape", "dst_mesh"))
                target = rng.choice((f"/{name}", f"/?{urlencode({**EXAMPLE, field: name})}"))
                raw = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            case _:  # fields of noise
                noise = "".join(rng.choices("f32[]{}x,y():_@#<>%&'\"", k=rng.randrange(1, 40)))
                query = urlencode({**EXAMPLE, rng.choice(("mesh", "src", "dst")): noise})
                raw = f"GET /?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        status, whole = ask(server, raw)
        assert 400 <= status < 500, (raw[:200], whole[:200])
        assert b"root:" not in whole
        assert b"Traceback" not in whole
    assert OPENED == []
