"""The jax backend under jax.distributed: processes that have some of the devices each."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests.worker import ROOT, cpu_devices


@pytest.mark.parametrize(("processes", "devices"), [(2, 8), (3, 6)])
def test_processes_reshard_together(processes: int, devices: int) -> None:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.jax.processes_worker", str(port), str(processes), str(n)],
            cwd=ROOT,
            env=cpu_devices(devices // processes),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(processes)
    ]
    try:
        for number, run in enumerate(runs):
            output, errors = run.communicate(timeout=180)
            assert run.returncode == 0, errors[-4000:]
            assert output.endswith("done\n" if number else "done\nheard\n")  # gloo writes before it
    finally:
        for run in runs:
            run.kill()
            run.communicate()
