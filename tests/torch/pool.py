"""Ranks of one torch.distributed job that run one case after the other, each fed over a socket."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from redistrib.demo.launch import kill
from tests import pool

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("REDISTRIB_TORCH", ROOT / ".venv-torch")) / "bin" / "python"


class Pool(pool.Pool):
    """So many ranks over gloo, waiting for cases; each is connected."""

    def __init__(self, ranks: int) -> None:
        if not PYTHON.exists():
            raise FileNotFoundError(f"torch is not set up: make test does it ({PYTHON})")
        self.ranks = ranks
        super().__init__(
            f"torch, {ranks} ranks",
            ranks,
            lambda path: subprocess.Popen(
                [str(PYTHON), "-m", "tests.torch.ranks", str(ranks), path],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            ),
        )

    def run(
        self, case: str, *arguments: object, timeout: float = 120, lost: int = 0
    ) -> dict[str, str]:
        """What failed, by rank. Raises if the ranks end or hang; the pool is of no use then.

        `lost`: how many ranks are to end without an answer.
        """
        for connection in self.connections:
            connection.settimeout(timeout)
            connection.sendall((json.dumps([case, arguments]) + "\n").encode())
        failed: dict[str, str] = {}
        silent = 0
        for answers in self.answers:
            try:
                answer = answers.readline()
            except TimeoutError:
                kill(self.process)
                raise AssertionError(f"the ranks hung in {case}{arguments}; {failed}") from None
            silent += not answer
            failed |= json.loads(answer or "{}")
        if silent != lost:
            kill(self.process)
            raise AssertionError(f"{silent} ranks ended in {case}{arguments}; {failed}")
        return failed
