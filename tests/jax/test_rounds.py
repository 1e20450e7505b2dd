"""Rounds between boxes, run in numpy: every element of every tile, once, and nothing else."""

from __future__ import annotations

import random
from collections import Counter
from itertools import permutations
from math import prod

import jax
import numpy as np
import pytest
from numpy.typing import NDArray

import redistrib as rd
from redistrib.backends import jax as rjax
from redistrib.backends.jax import shardings
from redistrib.backends.jax.choices import choices
from redistrib.backends.jax.colouring import stays
from redistrib.backends.jax.rounds import Rounds, find_rounds
from redistrib.backends.jax.steps import Step, gathers_in_turn
from redistrib.synth.plan.collectives import AllGather, AllToAll, DynamicSlice, Exchange
from redistrib.synth.plan.routing import exchange_traffic, lower_bound
from tests.generators import random_pair
from tests.problems import random_type
from tests.random_plans import random_mesh


def check(found: Rounds, held: rd.ArrayType, after: rd.ArrayType) -> int:
    """Run rounds on the numbers of the elements; bytes that the worst device receives."""
    array = np.arange(held.size, dtype=np.int64).reshape(held.shape)
    count = held.mesh.num_devices
    source_axes = [size for sizes in found.source for size in sizes]
    target_axes = [size for sizes in found.target for size in sizes]
    source = [array[np.ix_(*held.tile(n))].reshape(source_axes) for n in range(count)]
    target = [np.full(target_axes, -1) for _ in range(count)]
    written = [np.zeros(target_axes, int) for _ in range(count)]
    received = [0] * count
    for step in found.rounds:
        senders, receivers = zip(*step.routes, strict=True)
        assert max(Counter(senders).values()) == max(Counter(receivers).values()) == 1
        assert sorted(receivers) == np.flatnonzero(step.receivers).tolist()
        for sender, receiver in step.routes:
            box = source[sender][_box(step.take[sender], step.taken)].reshape(step.placed)
            target[receiver][_box(step.put[receiver], step.placed)] = box
            written[receiver][_box(step.put[receiver], step.placed)] += 1
            received[receiver] += box.size if sender != receiver else 0
    for n in range(count):
        assert np.array_equal(target[n].reshape(after.tile_shape), array[np.ix_(*after.tile(n))])
        assert (written[n] == 1).all()
    return max(received)


def _box(start: NDArray[np.intp], shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(low, low + size) for low, size in zip(start, shape, strict=True))


def test_exchanges_run_at_the_lower_bound() -> None:
    boxes = 0
    for seed in range(60):
        rng = random.Random(seed)
        mesh = random_mesh(rng, rng.choice((6, 8, 12)))
        shape = rng.choice([(24,), (12, 24), (48, 6), (16, 48)])
        src, dst = (random_type(rng, mesh, shape, "f32") for _ in range(2))
        found = find_rounds(
            exchange_traffic(src, dst).exchange,
            src,
            dst,
            src,
            cuts=rng.choice((1, 4, 64)),
            halves=rng.random() < 0.5,
        )
        if found is not None:
            assert check(found, src, dst) == lower_bound(src, dst)
            boxes += 1
    assert boxes > 50  # where digits match, or tiles have no local factors, every piece is a box


def test_boxes_that_fill_the_target_are_each_at_a_place_of_its_grid() -> None:
    filled = 0
    for seed in range(25):
        rng = random.Random(seed)
        mesh = random_mesh(rng, rng.choice((4, 8, 12)))
        src, dst = (random_type(rng, mesh, (24, 24), "f32") for _ in range(2))
        found = find_rounds(exchange_traffic(src, dst).exchange, src, dst, src)
        if found is None or not found.fills():
            continue
        filled += 1
        box, rounds = found.rounds[0].placed, len(found.rounds)
        shape = [size for sizes in found.target for size in sizes]
        grid = tuple(whole // part for whole, part in zip(shape, box, strict=True))
        assert prod(grid) == rounds
        for device in range(mesh.num_devices):
            cells = [tuple(step.put[device] // box) for step in found.rounds]
            assert sorted(np.ravel_multi_index(cell, grid) for cell in cells) == [*range(rounds)]
    assert filled > 8, filled


@pytest.mark.parametrize(
    ("mesh", "src", "dst", "passes"),
    [
        ({"x": 2, "y": 2}, "f32[256{x,y}, 256]", "f32[256, 256{y,x}]", True),
        ({"x": 4, "y": 4}, "f32[512{x}, 512]", "f32[512, 512{y}]", True),
        ({"x": 2, "y": 2}, "f32[8{x,y}, 8]", "f32[8, 8{y,x}]", False),  # small
        ({"x": 3, "y": 4}, "f32[768{y}, 768{x}]", "f32[768{x}, 768{y}]", False),  # of two sizes
        ({"x": 16}, "f32[1024{x}, 1024]", "f32[1024, 1024{x}]", False),  # too many
        (
            {"x": 2, "y": 8},
            "f32[1024{x}, 1024{y}]",
            "f32[1024{y}, 1024]",
            False,
        ),  # of parts of rows
    ],
)
def test_on_cpu_boxes_that_fill_the_target_are_put_together_in_one_pass(
    mesh: dict[str, int], src: str, dst: str, passes: bool
) -> None:
    before, after = (rd.ArrayType.parse(text, rd.Mesh(mesh)) for text in (src, dst))
    plan = rd.plan(before, after, strategy="direct")
    tile = jax.ShapeDtypeStruct(before.tile_shape, before.numpy_dtype)
    for in_rounds in (False, True):  # the second with the least memory
        program = rjax.tile_program(plan, platform="cpu", in_rounds=in_rounds)
        text = str(jax.make_jaxpr(program, axis_env=[*mesh.items()])(tile))
        assert ("dynamic_update_slice" in text) == (in_rounds or not passes)


def test_collectives_run_as_rounds_with_the_slices_before_them() -> None:
    seen: Counter[str] = Counter()
    for seed in range(250):
        src, dst = random_pair(random.Random(seed).choice, partial=False)
        if src.mesh.num_devices > 16 or not src.size:
            continue
        try:
            plan = rd.plan(src, dst, strategy="collectives")
        except rd.InfeasibleError:
            continue
        held = None
        for step, before, after in zip(plan.steps, plan.types, plan.types[1:], strict=False):
            start, held = held or before, None
            match step:
                case DynamicSlice():
                    exchange, held = Exchange(after.placements), start
                case AllGather() | AllToAll():
                    exchange = Exchange(after.placements)
                case _:
                    continue
            found = find_rounds(exchange, before, after, start)
            assert found is not None  # typed steps have digits that match
            received = check(found, start, after)
            k = prod(axis.size for axis in step.axes)
            wanted = {
                "dynamic_slice": 0,
                "all_gather": before.tile_size * (k - 1),
                "all_to_all": before.tile_size // k * (k - 1),
            }
            assert received == wanted[step.collective]
            seen[step.collective] += 1
            seen["after a slice"] += start != before
    assert min(seen[name] for name in ("dynamic_slice", "all_gather", "all_to_all")) >= 10, seen
    assert seen["after a slice"] > 0, seen


def test_the_kept_piece_takes_no_round_of_its_own_where_some_devices_have_none() -> None:
    mesh = rd.Mesh(x=4, y=4)
    src, dst = (rd.ArrayType.parse(text, mesh) for text in ("f32[16{x}, 16]", "f32[16, 16{y}]"))
    found = find_rounds(exchange_traffic(src, dst).exchange, src, dst, src)
    assert found is not None
    assert len(found.rounds) == 4
    assert all(step.receivers.all() for step in found.rounds)


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize(
    ("mesh", "src", "dst", "largest"),
    [
        ({"x": 3, "y": 4}, "f32[24{y}, 24{x}]", "f32[24{x}, 24{y}]", 3 / 4),
        ({"x": 3, "y": 2}, "f32[24{x}, 24{y}]", "f32[24{y}, 24{x}]", 2 / 3),
        ({"x": 2, "y": 2}, "f32[8{x}, 8{y}]", "f32[8{y}, 8{x}]", 1),  # whole tiles stay whole
    ],
)
def test_one_box_sent_and_one_received_are_a_tile(
    mesh: dict[str, int], src: str, dst: str, largest: float, halves: bool
) -> None:
    before, after = (rd.ArrayType.parse(text, rd.Mesh(mesh)) for text in (src, dst))
    exchange = exchange_traffic(before, after).exchange
    found = find_rounds(exchange, before, after, before, halves=halves)
    assert found is not None
    assert check(found, before, after) == lower_bound(before, after)
    share = max(prod(step.taken) for step in found.rounds) / after.tile_size
    assert share <= 1 / 2 if halves and largest < 1 else share == largest


def test_pieces_between_digits_are_cut_or_viewed() -> None:
    mesh = rd.Mesh(x=2, y=2)
    src, dst = (rd.ArrayType.parse(text, mesh) for text in ("f32[8, 16{x,y}]", "f32[8{x}, 16]"))
    halfway = rd.ArrayType.parse("f32[8{x}, 16{_2,y}]", mesh)
    gather = Exchange(dst.placements)
    for cuts, rounds, view in ((1, 1, ((4,), (2, 8))), (2, 2, ((4,), (16,)))):
        found = find_rounds(gather, halfway, dst, halfway, cuts)
        assert found is not None
        check(found, halfway, dst)
        assert found.target == view
        assert sum(not stays(step.routes) for step in found.rounds) == rounds
    assert [t for t in rd.plan(src, dst).types if t == halfway]  # as in a plan


@pytest.mark.parametrize(
    ("src", "dst", "axes"),
    [
        ("f32[16{x,y}, 8]", "f32[16, 8]", ["xy"]),
        ("f32[16{x}, 8{y}]", "f32[16, 8]", ["y", "x"]),  # y is brought in place before x repeats it
        ("f32[16, 8{y,x}]", "f32[16, 8]", ["yx"]),
        ("f32[16{x,y}, 8]", "f32[16{x}, 8]", ["y"]),
    ],
)
def test_gathers_end_with_what_lies_in_front(src: str, dst: str, axes: list[str]) -> None:
    mesh = rd.Mesh(x=2, y=2)
    before, after = (rd.ArrayType.parse(text, mesh) for text in (src, dst))
    lost = [place for place in before.placements if place not in after.placements]
    for placements in permutations(lost):  # a plan may name them in any order
        parts = gathers_in_turn(AllGather(placements), after)
        assert ["".join(d.axis for d, _ in part.placements) for part in parts] == axes
        reached = before
        for part in parts:
            reached = part.apply(reached)
        assert reached == after


@pytest.mark.parametrize(("alone", "rounds"), [(True, True), (False, False)])
def test_pairs_on_cpu_run_in_rounds_where_nothing_else_communicates(
    alone: bool, rounds: bool
) -> None:
    mesh = rd.Mesh(x=2)
    before, after = (rd.ArrayType.parse(text, mesh) for text in ("f32[8, 8{x}]", "f32[8, 8]"))
    gather = AllGather(before.placements)
    step = Step(gather, before, after, shardings.named_axes(mesh), choices("cpu"))
    assert (step.as_exchange(alone) is not None) == rounds


@pytest.mark.parametrize(
    ("platform", "size", "src", "rounds"),
    [
        ("tpu", 16, "f32[64{x}, 64]", False),  # in order already
        ("tpu", 16, "f32[64, 64{x}]", True),
        ("tpu", 32, "f32[64, 64{x}]", False),  # too many
        ("cuda", 16, "f32[64, 64{x}]", True),
        ("cpu", 16, "f32[64, 64{x}]", False),
    ],
)
def test_gathers_run_as_the_platform_has_it_best(
    platform: str, size: int, src: str, rounds: bool
) -> None:
    mesh = rd.Mesh(x=size)
    before, after = (rd.ArrayType.parse(text, mesh) for text in (src, "f32[64, 64]"))
    gather = AllGather(before.placements)
    step = Step(gather, before, after, shardings.named_axes(mesh), choices(platform))
    assert (step.as_exchange() is not None) == rounds


@pytest.mark.parametrize(
    ("src", "dst", "dim"),
    [
        ("f32[32{x}, 16, 64{y}]", "f32[32, 16{x}, 64{y}]", 2),
        ("f32[32{x}, 16, 64]", "f32[32, 16, 64{x}]", 1),
        ("f32[16{x}, 16, 64]", "f32[16{y}, 16, 64]", 1),  # not the larger, but the first
        ("f32[32{x}, 16{y}]", "f32[32{y}, 16{x}]", None),
        ("f32[32{x}, 4]", "f32[32{y}, 4]", None),  # 4 do not fall into 8 chunks
        ("f32[0, 16]", "f32[0, 16{x}]", None),
    ],
)
def test_chunks_are_taken_along_a_dimension_that_nobody_touches(
    src: str, dst: str, dim: int | None
) -> None:
    mesh = rd.Mesh(x=2, y=2)
    plan = rd.plan(*(rd.ArrayType.parse(text, mesh) for text in (src, dst)))
    assert rjax.chunk_dim(plan, 8) == dim
    if dim is None:
        with pytest.raises(rd.BackendError, match="a dimension that the plan does not touch"):
            rjax.chunked_program(plan, chunks=8)
