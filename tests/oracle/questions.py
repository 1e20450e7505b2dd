"""The laws of prices for all types (docs/oracle.md, "What holds"), on random questions.

Sub-axes, local factors, partial sums, digits that do not match, and two meshes, under every profile
that is shipped.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

import redistrib as rd
from redistrib.synth.plan.profile import profile_names
from redistrib.synth.planner.choose import choose
from redistrib.synth.planner.exact import exact_size
from redistrib.synth.planner.problem import Effort, make_problem
from redistrib.synth.planner.proposals import MAX_PROOF_TYPES
from redistrib.synth.planner.rewriting import Rewriting
from redistrib.types.digits import DeviceDigit, Factor, Local
from tests.generators import random_layout, random_pair

PROFILES = (None, *profile_names())

# Devices: a multiple of what a level of any profile holds, and of the digits that lie on its rings.
APART = 25 * 72 * 6144
EFFORTS: tuple[Effort, ...] = ("fast", "best")
CUT = 2.01  # by which an answer may be dearer where a search was cut: twice as many latencies
MOST = 1.05  # by which a single answer may be above a way through a third layout
ROUNDING = 1 + 1e-9  # what is cheaper is so by more than this
ABOVE: dict[Effort, float] = {"fast": ROUNDING, "best": MOST}
"""By which an answer may be above that to a harder question: stops on the way are not looked for
where a bound says that they gain less than 1.05."""


@dataclass(frozen=True, slots=True)
class Question:
    """Two types, a type of the array between them, and a profile."""

    src: rd.ArrayType
    dst: rd.ArrayType
    between: rd.ArrayType | None
    profile: str | None

    def __str__(self) -> str:
        types = " -> ".join(str(t) for t in (self.src, self.between, self.dst) if t is not None)
        return f"{self.src.mesh!r}, {self.dst.mesh!r}: {types} under {self.profile}"


def random_question(seed: int) -> Question:
    """Every third pair has no partial sums, every fifth is on two meshes."""
    rng = random.Random(seed)
    src, dst = random_pair(rng.choice, partial=seed % 3 > 0)
    between = None
    if seed % 5 == 0:
        dst = on_other_devices(rng, dst)
    else:
        between = random_type(rng, src)
    return Question(src, dst, between, rng.choice(PROFILES))


def on_other_devices(rng: random.Random, t: rd.ArrayType) -> rd.ArrayType:
    """The type on as many devices, some or none of them those of its mesh, in any order.

    Half of the time under the names of its axes, which mean nothing on another mesh.
    """
    count = t.mesh.num_devices
    first = rng.choice((0, count // 2, count))
    ids = list(range(first, first + count))
    if rng.random() < 0.5:
        rng.shuffle(ids)
    prefix = rng.choice(("", "on."))
    names = {axis: prefix + axis for axis, _ in t.mesh.axes}
    mesh = rd.Mesh([(names[axis], size) for axis, size in t.mesh.axes], devices=ids)
    return _with_names(t, mesh, names, range(len(t.shape)))


def random_type(rng: random.Random, like: rd.ArrayType) -> rd.ArrayType | None:
    """A type of the same array on the same mesh, or None where few draws give one."""
    for _ in range(20):
        dims, partial, products = random_layout(
            rng.choice, like.mesh, len(like.shape), rng.random() < 0.3
        )
        if all(n % p == 0 for n, p in zip(like.shape, products, strict=True)):
            try:
                return like.replace(
                    placements=rd.ArrayType(like.mesh, like.dtype, like.shape, dims).placements,
                    partial=rd.ArrayType(like.mesh, like.dtype, like.shape, dims, partial).partial,
                    reduction=like.reduction or "sum",
                )
            except rd.LayoutError:
                continue
    return None


def relabelled(rng: random.Random, types: list[rd.ArrayType]) -> list[rd.ArrayType]:
    """The same types with other names of axes, another order of each mesh and of dimensions.

    The devices are where they were. Two meshes may have names in common.
    """
    prefixes = rng.choice((("q.", "q."), ("q.", "r.")))
    meshes = {t.mesh: _renamed(rng, t.mesh, p) for t, p in zip(types, prefixes, strict=True)}
    order = rng.sample(range(len(types[0].shape)), len(types[0].shape))
    return [_with_names(t, *meshes[t.mesh], order) for t in types]


def _with_names(
    t: rd.ArrayType, mesh: rd.Mesh, names: dict[str, str], order: Sequence[int]
) -> rd.ArrayType:
    def renamed(factor: Factor) -> Factor:
        if isinstance(factor, Local):
            return factor
        return DeviceDigit(names[factor.axis], factor.pre, factor.size)

    shape, dims = [t.shape[d] for d in order], [[*map(renamed, t.dims[d])] for d in order]
    partial = [DeviceDigit(names[d.axis], d.pre, d.size) for d in t.partial]
    return rd.ArrayType(mesh, t.dtype, shape, dims, partial, t.reduction or "sum")


def _renamed(rng: random.Random, mesh: rd.Mesh, prefix: str) -> tuple[rd.Mesh, dict[str, str]]:
    """A mesh with its axes in another order under other names, and the new name of each."""
    order = rng.sample(range(len(mesh.axes)), len(mesh.axes))
    new = rng.sample([f"{prefix}{n}" for n in range(len(mesh.axes))], len(mesh.axes))
    names = {name: other for (name, _), other in zip(mesh.axes, new, strict=True)}
    ids = np.array(mesh.ids).reshape([size for _, size in mesh.axes]).transpose(order).ravel()
    axes = [(names[mesh.axes[at][0]], mesh.axes[at][1]) for at in order]
    return rd.Mesh(axes, devices=ids.tolist()), names


def with_idle_axis(t: rd.ArrayType, size: int) -> rd.ArrayType:
    """The type on a mesh with one more axis: each of its groups of devices has the same links."""
    ids = [d + n * APART for n in range(size) for d in t.mesh.ids]
    mesh = rd.Mesh([("idle", size), *t.mesh.axes], devices=ids)
    return rd.ArrayType(mesh, t.dtype, t.shape, t.dims, t.partial, t.reduction or "sum")


@dataclass(frozen=True, slots=True)
class Answer:
    """The seconds of a single answer, what gave it, and whether a search for it was `cut`."""

    seconds: float
    name: str
    cut: bool


def answer(
    types: Sequence[rd.ArrayType],
    profile: str | None,
    effort: Effort,
    memory_limit: int | None = None,
) -> Answer:
    """The answer to a question on one mesh or on two.

    A search is cut where the types on the way are too many for the exact one, or where it had no
    work left. Where digits match and nothing is summed no search has a part in the price.
    """
    src, dst = types
    problem = make_problem(src, dst, memory_limit, profile, effort)
    found = choose(problem)
    cut = False
    if not problem.across and (problem.partial or not problem.refinement.aligned):
        rewriting = Rewriting.of(problem)
        types_between = exact_size(rewriting.src, rewriting.dst)
        cut = types_between > MAX_PROOF_TYPES or problem.work.left <= 0
    return Answer(found.seconds, found.name, cut)


def dearer(more: Answer, less: float, most: float = ROUNDING) -> bool:
    """Whether an answer is more than `most` times so many seconds, which only one cut may be.

    By less than CUT times: that is counted, not refused.
    """
    if more.seconds <= less * most:
        return False
    assert more.cut, (more, less)
    assert more.seconds <= less * CUT, (more, less)
    return True


def verify_question(seed: int) -> Counter[str]:
    """All laws of one random question; how many answers were cut, and dearer for that."""
    asked = random_question(seed)
    counts: Counter[str] = Counter(questions=1)
    try:
        here, there = ({*t.mesh.ids} for t in (asked.src, asked.dst))
        # Between meshes of shared devices in another order, ties of routes follow positions.
        if asked.src.mesh == asked.dst.mesh or not here & there:
            verify_names_and_orders(asked, random.Random(seed))
        if asked.src.mesh != asked.dst.mesh:
            verify_limits(asked)
            return counts + Counter({"on two meshes": 1})
        counts += verify_limits(asked)
        counts += verify_idle_axis(asked, random.Random(seed).choice((2, 3, 4)))
        verify_ways_to_ask(asked)
        if asked.between is not None:
            counts += verify_third(asked, asked.between)
    except Exception as error:
        raise AssertionError(f"seed {seed}: {asked}: {error!r}") from error
    return counts


def verify_names_and_orders(asked: Question, rng: random.Random) -> None:
    """Other names, another order of the mesh and of dimensions change no price, to the last bit."""
    types = [asked.src, asked.dst]
    other = relabelled(rng, types)
    for effort in EFFORTS:
        found, again = (
            rd.cost(*ends, profile=asked.profile, effort=effort) for ends in (types, other)
        )
        assert found == again, (effort, found, again)


def verify_limits(asked: Question) -> Counter[str]:
    """A larger memory limit never costs more, and none costs no less than the larger end."""
    types = asked.src, asked.dst
    least = max(t.tile_bytes for t in types)
    whole = max(least, asked.src.size * asked.src.itemsize)
    limits = [None, *sorted({least, 2 * least, whole})]
    counts: Counter[str] = Counter()
    for effort in EFFORTS:
        found = [answer(types, asked.profile, effort, limit) for limit in limits]
        counts["answers"] += len(found)
        counts["answers that were cut"] += sum(each.cut for each in found)
        for smaller, larger in pairwise(found):
            worse = dearer(larger, smaller.seconds, ABOVE[effort])
            counts["dearer with a larger limit"] += worse
    return counts


def verify_idle_axis(asked: Question, size: int) -> Counter[str]:
    """One more axis, which neither type uses, never makes dearer."""
    types = [asked.src, asked.dst]
    idle = [with_idle_axis(t, size) for t in types]
    counts: Counter[str] = Counter()
    for effort in EFFORTS:
        found, again = (answer(ends, asked.profile, effort) for ends in (types, idle))
        counts["with an idle axis"] += 1
        counts["dearer with an idle axis"] += dearer(again, found.seconds, ABOVE[effort])
    return counts


def verify_ways_to_ask(asked: Question) -> None:
    """A vector has the single price, and a matrix of few pairs none above it."""
    src, dst = asked.src, asked.dst
    oracle = rd.Oracle(src.mesh, asked.profile)
    single = answer((src, dst), asked.profile, oracle.effort)
    assert oracle.cost(src, dst).seconds == single.seconds
    assert oracle.cost_vector([src], [dst]).tolist() == [single.seconds]
    of_matrix = float(oracle.cost_matrix([src], [dst])[0, 0])
    assert of_matrix == single.seconds
    assert oracle.cost_matrix([src], [dst], closed=False)[0, 0] == single.seconds


def verify_third(asked: Question, between: rd.ArrayType) -> Counter[str]:
    """A way through a third type, if no tile exceeds the ends, gains nothing in a matrix."""
    src, dst = asked.src, asked.dst
    if between.tile_bytes > max(src.tile_bytes, dst.tile_bytes):
        return Counter()
    oracle = rd.Oracle(src.mesh, asked.profile)
    types = [src, between, dst]
    matrix = oracle.cost_matrix(types, types)
    assert matrix[0, 2] <= (matrix[0, 1] + matrix[1, 2]) * ROUNDING, matrix
    through = oracle.cost(src, between).seconds + oracle.cost(between, dst).seconds
    worse = dearer(answer((src, dst), asked.profile, oracle.effort), through, MOST)
    return Counter({"with a third type": 1, "cheaper through a third type": int(worse)})
