"""The jax backend under jax.distributed: two processes with four devices each."""

from __future__ import annotations

import socket
import subprocess
import sys

from tests.worker import ROOT, cpu_devices

PROCESSES = 2


def test_two_processes_reshard_together() -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.jax.processes_worker", str(port), str(PROCESSES), str(n)],
            cwd=ROOT,
            env=cpu_devices(8 // PROCESSES),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(PROCESSES)
    ]
    try:
        for run in runs:
            output, errors = run.communicate(timeout=180)
            assert run.returncode == 0, errors[-4000:]
            assert output.endswith("done\n")  # gloo writes before it
    finally:
        for run in runs:
            run.kill()
            run.communicate()
