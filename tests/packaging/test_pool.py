"""Processes that wait for cases end with the tests that started them, however those end."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

HANGS = """
import socket, sys, time
from tests.pool import end_with
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    end_with(connection, grace=0.1)
    time.sleep(600)
"""


def test_a_process_of_a_pool_ends_soon_after_its_parent(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        with subprocess.Popen([sys.executable, "-c", HANGS, path]) as process:
            connection, _ = listener.accept()
            assert process.poll() is None
            connection.close()
            assert process.wait(timeout=60) == 1
