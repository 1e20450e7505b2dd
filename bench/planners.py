"""The planners that are compared, each as a call that can be timed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from types import TracebackType

import redistrib as rd
from bench.peers import ROOT
from bench.problems import Layout, Problem, axis_names
from bench.timing import Call, Prepare, Timed
from redistrib.synth.planner.problem import Strategy

PASS = "builtin.module(func.func(sdy-reshard-to-collectives))"  # noqa: S105


def types(problem: Problem) -> tuple[rd.ArrayType, rd.ArrayType]:
    """The two types of a problem, built anew."""
    names = axis_names(len(problem.axes))
    mesh = rd.Mesh(dict(zip(names, problem.axes, strict=True)))

    def typed(layout: Layout) -> rd.ArrayType:
        dims = [[names[axis] for axis in owners] for owners in layout]
        return rd.ArrayType(mesh, "f32", problem.shape, dims)

    return typed(problem.src), typed(problem.dst)


def ours(problem: Problem, strategy: Strategy) -> Prepare:
    """`rd.plan` on types that were just built, with nothing remembered from earlier calls."""

    def prepare() -> Callable[[], object]:
        src, dst = types(problem)
        forget()
        return lambda: rd.plan(src, dst, strategy=strategy)

    return prepare


def price(problem: Problem) -> Prepare:
    """`Oracle.cost` likewise, by a new oracle."""

    def prepare() -> Callable[[], object]:
        src, dst = types(problem)
        forget()
        oracle = rd.Oracle(src.mesh)
        return lambda: oracle.cost(src, dst)

    return prepare


def forget() -> None:
    """Empty every functools cache of redistrib, should there be any."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "redistrib":
            for value in vars(module).values():
                if clear := getattr(value, "cache_clear", None):
                    clear()


class Shardy:
    """Shardy's reshard pass from jaxlib, in one MLIR context that stays."""

    def __init__(self) -> None:
        from jax._src.interpreters import mlir
        from jaxlib.mlir import ir, passmanager

        self._ir, self._pass_manager = ir, passmanager.PassManager
        self._context = mlir.make_ir_context()

    @staticmethod
    def text(problem: Problem) -> str:
        """A problem as a module: a function whose argument is resharded once."""
        names = axis_names(len(problem.axes))
        axes = ", ".join(f'"{a}"={n}' for a, n in zip(names, problem.axes, strict=True))
        tensor = "tensor<" + "".join(f"{n}x" for n in problem.shape) + "f32>"

        def sharding(layout: Layout) -> str:
            dims = ("{" + ", ".join(f'"{names[a]}"' for a in owners) + "}" for owners in layout)
            return f"<@mesh, [{', '.join(dims)}]>"

        return (
            f"sdy.mesh @mesh = <[{axes}]>\n"
            f"func.func @main(%a: {tensor} {{sdy.sharding = #sdy.sharding{sharding(problem.src)}}})"
            f" -> {tensor} {{\n"
            f"  %r = sdy.reshard %a {sharding(problem.dst)} : {tensor}\n"
            f"  return %r : {tensor}\n}}\n"
        )

    def lower(self, text: str) -> object:
        """Parse a module and run the pass on it; the module."""
        with self._context:
            module = self._ir.Module.parse(text)
            self._pass_manager.parse(PASS).run(module.operation)
        return module

    def call(self, problem: Problem) -> Prepare:
        """Module text to lowered module; like our types, the text is there before."""
        text = self.text(problem)
        return lambda: lambda: self.lower(text)

    def text_call(self, problem: Problem) -> Prepare:
        """Layouts to the text of the steps, since a plan of ours can be read as it is."""
        return lambda: lambda: str(self.lower(self.text(problem)))


class DTensor:
    """DTensor's graph-based planner, in a process of its own that has torch."""

    def __init__(self, python: str) -> None:
        self._process = subprocess.Popen(
            [python, "-m", "bench.dtensor_worker"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.version = str(self._answer()["torch"])
        except BaseException:
            self._process.kill()
            raise

    def _answer(self) -> dict[str, int]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"the DTensor worker ended with status {self._process.wait()}; --torch-python names"
                " a Python that has torch"
            )
        answer: dict[str, int] = json.loads(line)
        return answer

    def call(self, problem: Problem) -> Call:
        """One call of the planner, timed by the worker."""
        question = {
            "axes": problem.axes,
            "shape": problem.shape,
            "src": problem.src,
            "dst": problem.dst,
        }
        line = json.dumps(question) + "\n"

        def run() -> Timed:
            assert self._process.stdin is not None
            self._process.stdin.write(line)
            self._process.stdin.flush()
            answer = self._answer()
            return Timed(answer["cpu"], answer["wall"])

        return run

    def __enter__(self) -> DTensor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
