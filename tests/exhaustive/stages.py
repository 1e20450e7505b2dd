"""What is checked, in units that can run in any order and on any process."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import log2
from pathlib import Path

import redistrib as rd
from redistrib.demo.survey import COUNTS, DTYPES, crashing, pairs
from redistrib.demo.survey import SMALL_MESHES as MESHES
from redistrib.synth.plan.data import make_plan
from redistrib.synth.plan.links import Link
from redistrib.synth.plan.profile import DEFAULT_PROFILE, Profile
from redistrib.synth.planner.exact import ExactSearch
from redistrib.types.refinement import refine
from tests.budget import verify_budget
from tests.checker.test_contract import verify_changed
from tests.exhaustive import mpi_units
from tests.generators import partial_layouts, random_pair, whole_axis_layouts
from tests.jax.survey import check
from tests.models.random_moves import random_case
from tests.models.verify import check_case
from tests.oracle.laws import FAMILIES, verify_matrix
from tests.oracle.questions import verify_question
from tests.paper.programs import verify_paper
from tests.uneven import meaning
from tests.uneven.test_plans import types_of
from tests.uneven.test_plans import verify as verify_uneven
from tests.verify import verify, verify_runs
from tests.worker import cpu_devices

EXACT_MESHES = MESHES[:4]
PARTIAL_MESHES = (((2, 2), (4, 4)), ((2, 3), (6, 6)), ((2, 2, 2), (8, 8)), ((2, 2, 3), (12, 12)))
SDY_MESHES = (0, 2)
BEST_MESHES = (0, 2)
BEST_PROFILES = ("default", "tpu-v5e", "mpi-cluster")
PROFILES = (Profile("no latency", Link(latency=0.0, bandwidth=1e11)), DEFAULT_PROFILE)
ROOT = Path(__file__).parents[2]
BLOCK = 500  # random examples in a unit
BUDGET_BLOCK = 25  # large pairs in a unit
JAX_BLOCK = 10  # pairs in a unit
MOVES_BLOCK = 50  # models in a unit
UNEVEN_SIZES = 14
QUESTIONS, QUESTION_BLOCK = 20_000, 250  # on prices, in all and in a unit
PROGRAMS, PROGRAM_BLOCK = 2000, 50  # random programs, in all and in a unit


@dataclass(frozen=True, slots=True)
class Stage:
    """A check as units of work; each unit gives counts, or raises at the first failure."""

    name: str
    what: str
    units: Callable[[int], range]
    run: Callable[[int], Counter[str]]
    finish: Callable[[Counter[str]], None] = lambda _: None
    """Raises where the sum of all counts breaks a law."""


def layouts(mesh_at: int) -> list[rd.ArrayType]:
    sizes, shape = MESHES[mesh_at]
    mesh = rd.Mesh(dict(zip("xyz", sizes, strict=True)))
    return list(whole_axis_layouts(mesh, shape))


def _rows(meshes: int) -> list[tuple[int, int]]:
    """Every mesh with every source layout on it."""
    return [(at, row) for at in range(meshes) for row in range(len(layouts(at)))]


def run_pairs(unit: int) -> Counter[str]:
    """All targets of one source layout, by both strategies."""
    at, row = _rows(len(MESHES))[unit]
    all_layouts = layouts(at)
    counts: Counter[str] = Counter()
    for dst in all_layouts:
        counts += verify(all_layouts[row], dst)
    assert not counts["infeasible"]
    return counts


def run_paper(unit: int) -> Counter[str]:
    """All targets of one source layout, by the paper's route; whole axes are all expressible."""
    at, row = _rows(len(MESHES))[unit]
    all_layouts = layouts(at)
    counts: Counter[str] = Counter()
    for dst in all_layouts:
        counts += verify_paper(all_layouts[row], dst)
    return counts


def run_exact(unit: int) -> Counter[str]:
    """No sequence of collectives under the same limit is cheaper, for all targets of one source."""
    at, row = _rows(len(EXACT_MESHES))[unit]
    all_layouts = layouts(at)
    src = all_layouts[row]
    counts: Counter[str] = Counter()
    for dst in all_layouts:
        aligned = refine(src, dst).aligned
        limit = (min if aligned else max)(src.tile_size, dst.tile_size)
        for profile in PROFILES:
            plan = rd.plan(src, dst, strategy="collectives", profile=profile)
            bound = plan.seconds * (1 - 1e-9)
            cheaper = ExactSearch(src, dst, limit, profile, bound).run() if plan.seconds else None
            assert cheaper is None, f"{src} -> {dst}, {profile.name}: {cheaper}"
            counts["aligned" if aligned else "misaligned"] += 1
    return counts


def partial_rows() -> list[tuple[int, int]]:
    """Every mesh of the partial pairs with every source layout on it."""
    return [(at, row) for at in range(len(PARTIAL_MESHES)) for row in range(len(_partial(at)))]


def _partial(mesh_at: int) -> list[rd.ArrayType]:
    sizes, shape = PARTIAL_MESHES[mesh_at]
    mesh = rd.Mesh(dict(zip("xyz", sizes, strict=False)))
    return list(partial_layouts(mesh, shape, "i64"))


def run_partial(unit: int) -> Counter[str]:
    """All targets of one source, one of them partial: the bound and a shortest path are met."""
    at, row = partial_rows()[unit]
    found = _partial(at)
    counts: Counter[str] = Counter()
    for dst in found:
        if found[row].partial or dst.partial:
            counts += verify_partial(found[row], dst)
    return counts


def verify_partial(src: rd.ArrayType, dst: rd.ArrayType) -> Counter[str]:
    """No sequence is cheaper than what `collectives` plans, and none is below the bound."""
    limit = max(src.tile_size, dst.tile_size)
    counts: Counter[str] = Counter()
    for profile in PROFILES:
        plan = rd.plan(src, dst, strategy="collectives", profile=profile)
        verify_runs(plan)
        steps = ExactSearch(src, dst, limit, profile).run()
        assert steps is not None, f"{src} -> {dst}"
        exact = make_plan(src, dst, "exact", steps, profile)
        assert plan.seconds <= exact.seconds * (1 + 1e-9), f"{src} -> {dst}, {profile.name}"
        assert exact.received_bytes >= exact.lower_bound_bytes, f"{src} -> {dst}"
        counts["pairs"] += 1
        counts["at the lower bound"] += exact.received_bytes == exact.lower_bound_bytes
    return counts


def run_best(unit: int) -> Counter[str]:
    """The best effort and the oracle give one answer, for all targets of one source layout."""
    at, row = [row for row in _rows(len(MESHES)) if row[0] in BEST_MESHES][unit]
    all_layouts = layouts(at)
    src = all_layouts[row]
    counts: Counter[str] = Counter()
    for profile in BEST_PROFILES:
        oracle = rd.Oracle(src.mesh, profile)
        for dst in all_layouts:
            plan = rd.plan(src, dst, effort="best", profile=profile)
            assert plan.seconds == oracle.plan(src, dst).seconds, f"{src} -> {dst}, {profile}"
            assert plan.seconds == oracle.cost(src, dst).seconds, f"{src} -> {dst}, {profile}"
            counts["pairs"] += 1
    return counts


def run_random(unit: int) -> Counter[str]:
    """A block of random pairs on random meshes, half of them with partial axes."""
    counts: Counter[str] = Counter()
    for seed in range(unit * BLOCK, (unit + 1) * BLOCK):
        rng = random.Random(seed)
        src, dst = random_pair(rng.choice, partial=seed % 2 == 0)
        try:
            counts += verify(src, dst)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {src.mesh}: {src} -> {dst}: {error!r}") from error
    return counts


def run_budget(unit: int) -> Counter[str]:
    """A block of large pairs, within the budget of time, and of memory of the whole process."""
    counts: Counter[str] = Counter()
    for seed in range(unit * BUDGET_BLOCK, (unit + 1) * BUDGET_BLOCK):
        counts += verify_budget(seed) + verify_budget(seed, uneven=True)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    assert held < 500, f"{held} MB"
    return counts


def run_corruptions(unit: int) -> Counter[str]:
    """A block of changed plans: what the checker accepts is read and runs as it says."""
    seeds = range(unit * BLOCK, (unit + 1) * BLOCK)
    accepted = sum(map(verify_changed, seeds))
    return Counter({"plans": len(seeds), "accepted": accepted})


def run_moves(unit: int) -> Counter[str]:
    """A block of random models, half of them uneven: on data, checked, at what they state."""
    counts: Counter[str] = Counter()
    for seed in range(unit * MOVES_BLOCK, (unit + 1) * MOVES_BLOCK):
        try:
            case = random_case(seed, targets=3, ranks=32, meshes=3, uneven=seed % 2 == 1)
            check_case(case)
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        counts["moves"] += 1
        counts["arrays"] += len(case.plan.moves)
        counts["at the bound"] += case.plan.received_bytes == case.plan.lower_bound_bytes
    return counts


def run_uneven(unit: int) -> Counter[str]:
    """All pairs of types of one dimension of one size on one mesh, by both strategies."""
    mesh, n = meaning.MESHES[unit // UNEVEN_SIZES], unit % UNEVEN_SIZES
    types = list(types_of(n, mesh))
    for src in types:
        for dst in types:
            for strategy in ("auto", "direct"):
                verify_uneven(src, dst, strategy)
    return Counter({f"pairs on {mesh}": len(types) ** 2})


def run_sdy(unit: int) -> Counter[str]:
    """All targets of one source layout, as Shardy's collectives."""
    from tests.interop.sdy_programs import verify_sdy_pair  # imports jax

    at, row = [row for row in _rows(len(MESHES)) if row[0] in SDY_MESHES][unit]
    all_layouts = layouts(at)
    counts: Counter[str] = Counter()
    for dst in all_layouts:
        counts += verify_sdy_pair(all_layouts[row], dst)
    return counts


def run_oracle(unit: int) -> Counter[str]:
    """The laws of one matrix: a family of layouts, a profile and a strategy."""
    return verify_matrix(*FAMILIES[unit])


def run_jax(unit: int) -> Counter[str]:
    """A block of the survey of reshardings on jax, crashing ones last; a tenth in all dtypes."""
    every = [*(pair for devices in COUNTS for pair in pairs(devices)), *crashing()]
    block = every[unit * JAX_BLOCK : (unit + 1) * JAX_BLOCK]
    others = [replace(block[0], dtype=dtype) for dtype in DTYPES[1:]]
    ratios: dict[str, list[float]] = {}
    counts = check(block, ratios) + check(others)
    for name, found in ratios.items():
        counts[f"millibits {name} receives over the bound"] += round(1000 * sum(map(log2, found)))
        counts[f"pairs of {name} with a bound"] += len(found)
    return counts


def run_programs(unit: int) -> Counter[str]:
    """A block of random programs, or after these all primitives, in a process of 8 devices."""
    if unit < PROGRAMS // PROGRAM_BLOCK:
        first = unit * PROGRAM_BLOCK
        found = _in_jax("random_programs", str(first), str(first + PROGRAM_BLOCK))
        assert json.loads(found) == {}, found
        return Counter(programs=PROGRAM_BLOCK)
    found = _in_jax("primitives")
    (counted,) = re.findall(r"^(\d+) primitives, none differs$", found, re.MULTILINE)
    return Counter(primitives=int(counted))


def _in_jax(module: str, *arguments: str) -> str:
    """What a module of tests/jax prints, on 8 devices."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", f"tests.jax.{module}", *arguments],
        cwd=ROOT,
        env=cpu_devices(8),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-5000:]
    return run.stdout


def law_files() -> list[Path]:
    """The files with laws that `make test` tries a few times only, there or in what they start."""
    texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")}
    few = "from tests.repetitions import"
    words = [few] + [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path, text in texts.items()
        if few in text and not path.name.startswith("test_")
    ]
    return sorted(
        path
        for path, text in texts.items()
        if path.name.startswith("test_") and any(word in text for word in words)
    )


def run_laws(unit: int) -> Counter[str]:
    """The tests of one file, each law tried many times, or a block of random questions."""
    if unit >= (files := len(law_files())):
        blocks = range((unit - files) * QUESTION_BLOCK, (unit - files + 1) * QUESTION_BLOCK)
        return sum(map(verify_question, blocks), Counter[str]())
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", law_files()[unit]],
        cwd=ROOT,
        env={**os.environ, "REDISTRIB_TESTS": "many"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-5000:]
    (passed,) = re.findall(r"^(\d+) passed", run.stdout, re.MULTILINE)
    return Counter(files=1, tests=int(passed))


def check_jax_mean(total: Counter[str]) -> None:
    """The geometric mean of received bytes over the bound is small."""
    millibits = total["millibits ours receives over the bound"]
    assert 2 ** (millibits / 1000 / total["pairs of ours with a bound"]) <= 1.15, total


def stages(examples: int) -> Iterator[Stage]:
    pairs, exact = len(_rows(len(MESHES))), len(_rows(len(EXACT_MESHES)))
    yield Stage(
        "pairs",
        "every ordered pair of whole-axis layouts on eight meshes, collectives and direct",
        lambda _: range(pairs),
        run_pairs,
    )
    yield Stage(
        "exact",
        "collectives cost what an exact search finds, at latency 0 and under the default profile",
        lambda _: range(exact),
        run_exact,
    )
    yield Stage(
        "laws",
        "the tests that try a law on random inputs, with many of them, and the laws of prices on"
        " 20,000 random questions of all types under every profile",
        lambda _: range(len(law_files()) + QUESTIONS // QUESTION_BLOCK),
        run_laws,
    )
    yield Stage(
        "partial",
        "every ordered pair with a partial sum on 2x2, 2x3, 2x2x2 and 2x2x3, rank 2: collectives"
        " cost what an exact search finds, and neither is below the bound",
        lambda _: range(len(partial_rows())),
        run_partial,
    )
    yield Stage(
        "best",
        "rd.plan with the best effort takes the seconds of the oracle, on 2x2x2 and 2x3x2, under"
        " three profiles",
        lambda _: range(sum(len(layouts(at)) for at in BEST_MESHES)),
        run_best,
    )
    yield Stage(
        "random",
        "random meshes, sub-axes, local factors and partial axes, collectives and direct",
        lambda _: range(examples // BLOCK),
        run_random,
    )
    yield Stage(
        "budget",
        "pairs of up to 8 axes, rank 8, 2**60 elements and 65,536 devices, on one mesh or two:"
        " planned, priced and checked within counted calls and 500 MB",
        lambda _: range(600 // BUDGET_BLOCK),
        run_budget,
    )
    yield Stage(
        "corruptions",
        "20,000 plans with one to three entries changed: a CheckError that names the step, or read"
        " and run on the simulator to the right tiles with the traffic that they state",
        lambda _: range(20_000 // BLOCK),
        run_corruptions,
    )
    yield Stage(
        "paper",
        "every ordered pair of whole-axis layouts on eight meshes, strategy paper and normal form",
        lambda _: range(pairs),
        run_paper,
    )
    yield Stage(
        "uneven",
        "every ordered pair of rules and sizes 0 to 13 of one dimension, automatic and direct",
        lambda _: range(UNEVEN_SIZES * len(meaning.MESHES)),
        run_uneven,
    )
    yield Stage(
        "moves",
        "5,000 random models of 1 to 3 meshes a side, 32 devices at most, half of them uneven: bit"
        " for bit what numpy says, checked, with the bytes that they state",
        lambda _: range(5_000 // MOVES_BLOCK),
        run_moves,
    )
    yield Stage(
        "sdy",
        "every ordered pair of whole-axis layouts on 2x2x2 and 2x3x2, as Shardy's collectives",
        lambda _: range(sum(len(layouts(at)) for at in SDY_MESHES)),
        run_sdy,
    )
    yield Stage(
        "oracle",
        "matrices of all whole-axis layouts of rank 3 on seven meshes, under four profiles, auto"
        " and direct: finite, zero at home, no cheaper detour, monotone, plans as priced",
        lambda _: range(len(FAMILIES)),
        run_oracle,
    )
    yield Stage(
        "mpi",
        "2,000 random plans, 5,000 programs against numpy, every core pair and real cases on ranks"
        " of MPICH and of Open MPI",
        lambda _: range(len(mpi_units.units())),
        mpi_units.run,
    )
    yield Stage(
        "mpi-models",
        "500 random models of 1 to 3 meshes a side, half of them uneven, on 2 to 8 ranks of MPICH"
        " and 500 of Open MPI: bit for bit what numpy says",
        lambda _: range(len(mpi_units.model_units())),
        mpi_units.run_models,
    )
    yield Stage(
        "programs",
        "2,000 random jax programs of 1 to 6 redistributions, plain against ours, and every"
        " primitive of jax between two constraints: the same bits, dtypes, devices and layouts",
        lambda _: range(PROGRAMS // PROGRAM_BLOCK + 1),
        run_programs,
    )
    yield Stage(
        "jax",
        "reshardings on jax: bit-exact, temp and buffers bounded, in chunks too, no more than XLA, "
        "received within 1.15 of the bound",
        lambda _: range(-(-(sum(COUNTS.values()) + len(crashing())) // JAX_BLOCK)),
        run_jax,
        check_jax_mean,
    )
