"""What importing the package pulls in, and which layer may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.code import imports

PACKAGE = Path(__file__).parents[2] / "redistrib"
OPTIONAL = ("jax", "mpi4py", "z3", "click", "rich", "ml_dtypes")

# layer -> what it may not import, not even inside a function. The bare root ("") re-exports every
# layer, so it counts as all of them.
ABOVE_SYNTH = ("models", "partition", "backends", "interop", "report", "demo", "cli")
FORBIDDEN = {
    "errors": ("", "display", "text", "types", "synth", "checker", *ABOVE_SYNTH),
    "display": ("", "errors", "text", "types", "synth", "checker", *ABOVE_SYNTH),
    "text": ("", "display", "types", "synth", "checker", *ABOVE_SYNTH),
    "types": ("", "synth", "checker", *ABOVE_SYNTH),
    "synth": ("", "checker", *ABOVE_SYNTH),
    "checker": ("", "synth", *ABOVE_SYNTH),
    "models": ("", "partition", "backends", "interop", "report", "demo", "cli"),
    "partition": ("", "checker", "models", "backends", "interop", "report", "demo", "cli"),
    "backends": ("", "checker", "partition", "report", "demo", "cli"),
    "interop": ("", "checker", "models", "partition", "backends", "report", "demo", "cli"),
    "report": ("", "checker", "partition", "backends", "interop", "demo", "cli"),
    "demo": ("", "cli"),
}


def optional_modules_after(statement: str) -> set[str]:
    """The optional dependencies loaded in a fresh interpreter that has run `statement`."""
    code = f"{statement}\nimport sys; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    roots = {name.partition(".")[0] for name in result.stdout.split()}
    return roots & set(OPTIONAL)


def violations(source: str, forbidden: tuple[str, ...]) -> set[str]:
    """The imports of `source` that lie in a forbidden layer; "" stands for the bare root."""
    bad = set()
    for module in imports(ast.parse(source)):
        root, _, rest = module.partition(".")
        if root == "redistrib" and rest.partition(".")[0] in forbidden:
            bad.add(module)
    return bad


def files_of(layer: str) -> list[Path]:
    directory = PACKAGE / layer
    return sorted(directory.rglob("*.py")) or [directory.with_suffix(".py")]


def test_importing_the_package_loads_numpy_only() -> None:
    assert optional_modules_after("import redistrib") == set()


@pytest.mark.parametrize("module", OPTIONAL)
def test_the_import_test_can_fail(module: str) -> None:
    assert module in optional_modules_after(f"import redistrib, {module}")


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_layers_import_downwards_only(layer: str) -> None:
    files = files_of(layer)
    found = {
        str(file.relative_to(PACKAGE)): bad
        for file in files
        if (bad := violations(file.read_text(encoding="utf-8"), FORBIDDEN[layer]))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("source", "bad"),
    [
        ("import redistrib", {"redistrib"}),
        ("import redistrib.synth.plan.data as p", {"redistrib.synth.plan.data"}),
        ("from redistrib import synth", {"redistrib.synth"}),
        ("def f():\n    from redistrib.cli import main", {"redistrib.cli.main"}),
        ("from redistrib.types.mesh import Mesh\nimport numpy", set()),
    ],
)
def test_the_layer_test_can_fail(source: str, bad: set[str]) -> None:
    assert violations(source, FORBIDDEN["types"]) == bad


def test_relative_imports_are_refused() -> None:
    with pytest.raises(AssertionError, match="relative import"):
        imports(ast.parse("from . import mesh"))
