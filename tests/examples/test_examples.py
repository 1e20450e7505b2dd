"""Every example runs, says that it is right, and is short; so do the cells of the notebook."""

from __future__ import annotations

import ast
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(file.name for file in EXAMPLES.glob("*.py"))
OF_TORCH = tuple(name for name in SCRIPTS if name.endswith("_torch.py"))
"""`tests/torch/` runs them: torch has an environment of its own."""
OF_JAX = tuple(name for name in SCRIPTS if name.startswith("jax_"))
OF_MPI = tuple(name for name in SCRIPTS if name.startswith("mpi_"))
MODEL = "model_move.py"
PARTITIONERS = ("alpa.py", "automap.py", "partir.py", "propagation.py", "transformer.py")
"""`tests/partition/` runs them."""
MPIEXEC = Path(sys.executable).with_name("mpiexec")


def check(printed: str, right: int = 1) -> None:
    assert printed.count("True") >= right, printed
    assert "False" not in printed


def run(*command: object) -> str:
    line = [str(part) for part in command]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_examples_in_jax() -> None:
    """In one process, for its start takes longer than they do."""
    code = "import runpy, sys; [runpy.run_path(p, run_name='__main__') for p in sys.argv[1:]]"
    check(run(sys.executable, "-c", code, *(EXAMPLES / name for name in OF_JAX)), len(OF_JAX))


@pytest.mark.parametrize("name", OF_MPI)
def test_the_examples_under_mpi(name: str) -> None:
    check(run(MPIEXEC, "-n", 4, sys.executable, EXAMPLES / name))


def test_the_move_of_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / MODEL), run_name="__main__")
    check(capsys.readouterr().out)


def test_the_cells_of_the_notebook_run_and_show_pages() -> None:
    notebook = json.loads((EXAMPLES / "plans.ipynb").read_text(encoding="utf-8"))
    scope: dict[str, Any] = {}
    pages = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        *body, last = ast.parse("".join(cell["source"])).body
        exec(compile(ast.Module(body, []), "cell", "exec"), scope)
        assert isinstance(last, ast.Expr)  # what the notebook shows
        shown = eval(compile(ast.Expression(last.value), "cell", "eval"), scope)
        pages += hasattr(shown, "_repr_html_") and "<style>" in shown._repr_html_()
    assert pages == 6


def test_every_example_is_run_and_is_short() -> None:
    assert {*OF_JAX, *OF_MPI, *OF_TORCH, *PARTITIONERS, MODEL} == set(SCRIPTS)
    for name in SCRIPTS:
        text = (EXAMPLES / name).read_text(encoding="utf-8")
        assert len(text.splitlines()) < 250
        assert f"examples/{name}" in (ast.get_docstring(ast.parse(text)) or "")
