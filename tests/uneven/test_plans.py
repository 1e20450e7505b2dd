"""Plans between uneven types: on data, at the bound, checked; every pair of rules and sizes."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import redistrib as rd
from redistrib.backends import simulator
from tests.repetitions import MANY, repetitions
from tests.uneven.meaning import MESHES, layouts

Choose = Callable[[Sequence[Any]], Any]
RINGS = (rd.Mesh("x=6", devices=[5, 3, 1, 0, 2, 4]), rd.Mesh("x=4", devices=[7, 1, 3, 9]))


def types_of(n: int, mesh: rd.Mesh) -> Iterator[rd.ArrayType]:
    """Types of a dimension of size n, each once, uneven ones and the even ones among them."""
    seen = {rd.ArrayType(mesh, "i32", [n])}
    yield from seen
    for factors, rule in layouts(n, mesh):
        try:
            t = rd.ArrayType(mesh, "i32", [n], [factors], uneven={0: rule})
        except rd.LayoutError:
            continue  # parts of an axis that do not go together
        if t not in seen:
            seen.add(t)
            yield t


def least_received(src: rd.ArrayType, dst: rd.ArrayType) -> int:
    """Bytes that the worst device needs and does not have, element by element."""
    worst = 0
    place = {device: position for position, device in enumerate(src.mesh.ids)}
    for position, device in enumerate(dst.mesh.ids):
        needs = _elements(dst, position)
        has = _elements(src, place[device]) if device in place else set()
        worst = max(worst, len(needs - has) * src.itemsize)
    return worst


def _elements(t: rd.ArrayType, position: int) -> set[int]:
    numbers = np.arange(t.size).reshape(t.shape)
    return set(numbers[np.ix_(*t.tile(position))].reshape(-1).tolist())


def verify(src: rd.ArrayType, dst: rd.ArrayType, strategy: Any = "auto") -> rd.Plan:
    """A plan of a pair with all its claims held against data."""
    plan = rd.plan(src, dst, strategy=strategy)
    rd.check(plan)
    assert rd.Plan.from_json(plan.to_json()) == plan
    array = np.arange(src.size, dtype=src.numpy_dtype).reshape(src.shape)
    tiles = simulator.run(plan, simulator.scatter(array, src))
    assert [tile.shape for tile in tiles] == [
        dst.tile_shape_at(position) for position in range(dst.mesh.num_devices)
    ]
    assert np.array_equal(simulator.gather(tiles, dst), array)
    if not dst.partial:
        for position, tile in enumerate(tiles):
            assert np.array_equal(tile, array[np.ix_(*dst.tile(position))])
    measured = simulator.measure(plan)
    for name in ("received_bytes", "sent_bytes", "live_bytes", "peak_tile_bytes"):
        assert getattr(measured, name) == getattr(plan, name), name
    if not (src.partial or dst.partial):
        assert plan.lower_bound_bytes == least_received(src, dst)
        assert strategy != "direct" or plan.received_bytes == plan.lower_bound_bytes
    assert plan.received_bytes >= plan.lower_bound_bytes
    assert plan.peak_tile_bytes <= max(src.tile_bytes, dst.tile_bytes)
    cost = rd.cost(src, dst, strategy=strategy)
    figures = plan.seconds, plan.received_bytes, plan.peak_tile_bytes, plan.num_collectives
    assert figures == (
        cost.seconds,
        cost.received_bytes,
        cost.peak_tile_bytes,
        cost.num_collectives,
    )
    return plan


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_every_pair_of_rules_and_sizes(mesh: rd.Mesh) -> None:
    rng = random.Random(f"pairs {mesh}")
    for n in range(14):
        types = list(types_of(n, mesh))
        pairs = [(a, b) for a in types for b in types]
        if not MANY:
            pairs = rng.sample(pairs, min(len(pairs), 6))
        for src, dst in pairs:
            verify(src, dst, rng.choice(("auto", "direct")))


def random_type(choose: Choose, mesh: rd.Mesh, shape: Sequence[int], kind: str) -> rd.ArrayType:
    """A type with rules on some dimensions, perhaps a partial sum."""
    while True:
        names = [name for name, _ in mesh.axes]
        dims: list[list[str]] = [[] for _ in shape]
        partial = []
        for name in names:
            place = choose((*range(len(shape)), "free", "partial" if kind else "free"))
            if isinstance(place, int):
                dims[place].insert(choose(range(len(dims[place]) + 1)), name)
            elif place == "partial":
                partial.append(name)
        rules = {dim: choose(("ceil", "ceil", "balanced", "nested")) for dim in range(len(shape))}
        for dim, rule in rules.items():
            if dims[dim] and rule == "ceil" and choose((True, False)):
                dims[dim] = [f"_{choose((2, 3))}", *dims[dim]]
        return rd.ArrayType(mesh, "i32", shape, dims, partial, kind or "sum", rules)


def test_arrays_of_more_dimensions() -> None:
    """Rules on several dimensions, partial sums, two meshes; a name of a strategy or none."""
    rng = random.Random("dimensions")
    padded = 0
    meshes = (*MESHES, rd.Mesh("x=2,y=2,z=2"), *RINGS)
    for _ in range(repetitions(60, 3000)):
        here = rng.choice(meshes)
        there = here if rng.random() < 0.7 else rng.choice(meshes)
        shape = [rng.randrange(0 if rng.random() < 0.1 else 1, 9) for _ in range(rng.randrange(3))]
        kinds = [rng.choice(("", "", "sum")) for _ in range(2)]
        src = random_type(rng.choice, here, shape, kinds[0])
        dst = random_type(rng.choice, there, shape, kinds[1])
        plan = verify(src, dst, rng.choice(("auto", "auto", "direct")))
        padded += plan.padded_shape is not None
    assert padded


def test_padded_where_padded_sizes_agree() -> None:
    """One all_to_all of padded tiles instead of an exchange, and only where that takes no more."""
    mesh = rd.Mesh(x=4, y=2)
    src, dst = (rd.ArrayType.parse(t, mesh) for t in ("f32[10{x}:ceil, 8]", "f32[10, 8{x}]"))
    plan = verify(src, dst)
    assert [step.collective for step in plan.steps] == ["all_to_all"]
    assert plan.padded_shape == (12, 8)
    one = rd.plan(rd.ArrayType.parse("f32[1{x}:ceil]", mesh), "f32[1]")
    assert (one.padded_shape, one.peak_tile_bytes) == (None, 4)
    with pytest.raises(rd.LayoutError, match="exchange blocks, under auto or direct"):
        rd.plan(("f32[10{x}:ceil]", mesh), "f32[10{x}:balanced]", strategy="collectives")
    with pytest.raises(rd.InfeasibleError):
        rd.plan(("f32[1{x}:ceil]", mesh), "f32[1]", strategy="collectives")


def test_large_arrays_are_planned_by_blocks_and_digits() -> None:
    mesh = rd.Mesh(dp=8, tp=12)
    src = rd.ArrayType.parse("bf16[128256{tp}:ceil, 4096{dp}]", mesh)
    dst = rd.ArrayType.parse("bf16[128256{dp,tp}:nested, 4096]", mesh)
    plan = rd.plan(src, dst, strategy="direct")
    assert rd.check(plan)["received_bytes"] == plan.received_bytes == plan.lower_bound_bytes
    assert simulator.measure(plan).sent_bytes == plan.sent_bytes


def test_more_runs_than_can_be_enumerated_are_refused() -> None:
    """Block-cyclic in 10**14 blocks: one line from the planner, the reader and the checker."""
    mesh = rd.Mesh(x=4)
    n = 10**15 + 1
    src, dst = f"f32[{n}{{_{n // 12 + 1},x,_3}}:ceil]", f"f32[{n}{{x}}:balanced]"
    with pytest.raises(rd.LayoutError, match="positions are enumerated"):
        rd.plan((src, mesh), dst)
    plan = rd.plan(("f32[10{x}:ceil]", mesh), "f32[10{x}:balanced]", strategy="direct")
    data = {**json.loads(plan.to_json()), "src": src, "dst": dst}
    data["steps"] = [{**data["steps"][0], "blocks": dst}]
    with pytest.raises(rd.LayoutError, match="positions are enumerated"):
        rd.Plan.from_json(json.dumps(data))
    with pytest.raises(rd.CheckError, match="enumerates at most"):
        rd.check(data)


def test_figures_of_the_largest_arrays_are_exact() -> None:
    """Beyond what a float has as an integer, and beyond 64 bits."""
    for n in (2**53 + 2, 2**59 + 1, 2**60 - 1):
        mesh, other = rd.Mesh(x=4), rd.Mesh(y=16)
        src = rd.ArrayType.parse(f"i8[{n}{{x,_{n}}}:ceil, {n}]", mesh)  # all on the first device
        for dst, received, sent in (
            (rd.ArrayType.parse(f"i8[{n}, {n}]", mesh), n * n, 3 * n * n),
            (rd.ArrayType.parse(f"i8[{n}, {n}]", other), n * n, 15 * n * n),
        ):
            plan = rd.plan(src, dst, strategy="direct")
            assert (plan.received_bytes, plan.sent_bytes) == (received, sent)
            assert rd.check(plan)["received_bytes"] == plan.lower_bound_bytes == received
    n = 2**59 + 1
    assert rd.check(rd.plan((f"i8[{n}] sum{{x}}", rd.Mesh(x=8)), f"i8[{n}]"))


def test_thousands_of_devices_are_checked_in_a_moment() -> None:
    """Owners by owners, and as many replicas as receivers."""
    for src, dst in (
        (("f32[100003{x}:ceil]", rd.Mesh(x=2048)), ("f32[100003{y}:balanced]", rd.Mesh(y=1000))),
        (("f32[100003]", rd.Mesh(x=1 << 13)), ("f32[100003{x}:balanced]", rd.Mesh(x=1 << 13))),
    ):
        plan = rd.plan(rd.ArrayType.parse(*src), rd.ArrayType.parse(*dst))
        began = time.process_time()
        assert rd.check(plan)["received_bytes"] == plan.received_bytes == plan.lower_bound_bytes
        assert time.process_time() - began < 8


def test_a_page_shows_an_exchange_of_no_elements() -> None:
    src, dst = (
        ("f32[6, 0, 9{x}:balanced]", rd.Mesh(x=2)),
        ("f32[6{x}:balanced, 0, 9]", rd.Mesh(x=4)),
    )
    plan = rd.plan(rd.ArrayType.parse(*src), rd.ArrayType.parse(*dst), strategy="direct")
    assert "6, 0, 9" in plan._repr_html_()


@pytest.mark.parametrize(
    ("n", "strategy"), [(10**15 + 1, "auto"), (10**15 + 1, "collectives"), (13, "collectives")]
)
def test_an_error_names_no_limit_that_nobody_set(n: int, strategy: Any) -> None:
    """Padded tiles above both ends, and blocks beyond enumeration or not asked for."""
    mesh = rd.Mesh(x=4)
    src = rd.ArrayType.parse(f"f32[{n}{{_{n // 12 + 1},x,_3}}:ceil]", mesh)
    dst = rd.ArrayType.parse(f"f32[{n}]", mesh)
    with pytest.raises(
        rd.RedistribError, match=r"enumerated|no tile exceeds the larger end"
    ) as caught:
        rd.plan(src, dst, strategy=strategy)
    assert "memory limit" not in str(caught.value)
    if isinstance(caught.value, rd.InfeasibleError):
        least = caught.value.least_bytes
        assert rd.plan(src, dst, strategy=strategy, memory_limit=least).peak_tile_bytes == least
