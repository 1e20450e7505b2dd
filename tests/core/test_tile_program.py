"""The tile program of a plan: a backend that supplies the primitives alone runs every plan."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

import redistrib as rd
from redistrib.backends import simulator
from redistrib.backends.simulator.tiles import Tiles, Views
from redistrib.demo.workloads import WORKLOADS
from redistrib.synth.plan.data import Plan, make_plan
from redistrib.synth.plan.routing import exchange_traffic
from redistrib.synth.plan.tile_program import (
    Fetch,
    Groups,
    Send,
    Transpose,
    interpret,
    tile_program,
)
from redistrib.types.reduction import UFUNCS, identity
from redistrib.types.tile import same_bits
from tests.generators import random_pair
from tests.random_plans import random_plan, random_tiles
from tests.repetitions import repetitions

Tile = np.ndarray


class Toy:
    """A backend: the value of an operation is the list of the tiles of all devices."""

    def reshape(self, tiles: list[Tile], shape: tuple[int, ...]) -> list[Tile]:
        return [tile.reshape(shape) for tile in tiles]

    def transpose(self, tiles: list[Tile], order: tuple[int, ...]) -> list[Tile]:
        return [tile.transpose(order) for tile in tiles]

    def pick(self, tiles: list[Tile], groups: Groups) -> list[Tile]:
        return [pieces[place] for pieces, place in zip(tiles, groups.places(), strict=True)]

    def place(self, tiles: list[Tile], groups: Groups, reduction: str) -> list[Tile]:
        wholes = [np.stack([self._filled(tile, reduction)] * groups.size) for tile in tiles]
        for whole, tile, place in zip(wholes, tiles, groups.places(), strict=True):
            whole[place] = tile
        return wholes

    def gather(self, tiles: list[Tile], groups: Groups) -> list[Tile]:
        group = {device: members for members in groups.members().tolist() for device in members}
        return [np.stack([tiles[d] for d in group[device]]) for device in range(len(tiles))]

    def swap(self, tiles: list[Tile], groups: Groups) -> list[Tile]:
        return [w[:, p] for w, p in zip(self.gather(tiles, groups), groups.places(), strict=True)]

    def scatter(self, tiles: list[Tile], groups: Groups, reduction: str) -> list[Tile]:
        return [_combined(addends, reduction) for addends in self.swap(tiles, groups)]

    def reduce(self, tiles: list[Tile], groups: Groups, reduction: str) -> list[Tile]:
        return [_combined(addends, reduction) for addends in self.gather(tiles, groups)]

    def keep_first(self, tiles: list[Tile], groups: Groups, reduction: str) -> list[Tile]:
        places = groups.places()
        return [
            tile if place == 0 else self._filled(tile, reduction)
            for tile, place in zip(tiles, places, strict=True)
        ]

    def send(self, tiles: list[Tile], operation: Send) -> list[Tile]:
        return [tiles[source] for source in operation.sources()]

    def fetch(self, tiles: list[Tile], operation: Fetch) -> list[Tile]:
        found = operation.pieces()
        shape, count = operation.after.tile_shape, operation.after.mesh.num_devices
        result = [np.empty(shape, tiles[0].dtype) for _ in range(count)]
        for piece in found.pieces:
            ends = [
                np.ix_(
                    *(
                        (blocks[:, None] * size + np.arange(size)).reshape(-1)
                        for blocks, size in zip(end, found.block, strict=True)
                    )
                )
                for end in (piece.take, piece.put)
            ]
            result[piece.receiver][ends[1]] = tiles[piece.sender][ends[0]]
        return result

    def _filled(self, tile: Tile, reduction: str) -> Tile:
        return np.full(tile.shape, identity(tile.dtype, reduction), tile.dtype)


def _combined(addends: Tile, reduction: str) -> Tile:
    result = addends[0]
    for addend in addends[1:]:
        result = UFUNCS[reduction](result, addend, dtype=addends.dtype)
    return result


def run_on_toy(plan: Plan, tiles: list[Tile]) -> list[Tile]:
    for part in tile_program(plan.steps, plan.types):
        tiles = interpret(part.operations, Toy(), tiles)
    place = {device: position for position, device in enumerate(plan.types[-1].mesh.ids)}
    return [tiles[place[device]] for device in plan.dst.mesh.ids]


def check(plan: Plan, seed: int) -> None:
    """The toy's tiles are the simulator's, bit for bit."""
    tiles = random_tiles(plan, seed)
    results = run_on_toy(plan, tiles)
    for position, (ours, theirs) in enumerate(
        zip(results, simulator.run(plan, tiles), strict=True)
    ):
        assert same_bits(ours, theirs), (str(plan.src), str(plan.dst), position)


def test_the_primitives_alone_run_random_plans_of_every_collective() -> None:
    seen: Counter[str] = Counter()
    for seed in range(repetitions(250, 2000)):
        rng = random.Random(seed)
        plan = random_plan(rng, rng.choice((2, 6, 8, 12)), reduce=seed % 3 == 0)
        check(plan, seed)
        seen.update(step.collective for step in plan.steps)
    assert len(seen) == 9, seen
    assert min(seen.values()) > 10, seen


@pytest.mark.parametrize("strategy", ["auto", "collectives", "direct", "paper"])
def test_the_primitives_alone_run_what_is_planned(strategy: str) -> None:
    planned = 0
    for seed in range(repetitions(400, 2000)):
        src, dst = random_pair(random.Random(seed).choice)
        if src.size > 1 << 12 or src.mesh.num_devices > 24:
            continue
        try:
            plan = rd.plan(src, dst, strategy=strategy)
        except rd.RedistribError:  # no plan of this strategy
            continue
        check(plan, seed)
        planned += 1
    assert planned > 60


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_the_primitives_alone_run_the_workloads(workload: object) -> None:
    src, dst = workload.types()
    check(rd.plan(src, dst), 0)


def test_the_primitives_alone_run_plans_between_meshes() -> None:
    source, target = rd.Mesh({"x": 4}, devices=[0, 1, 2, 3]), rd.Mesh({"y": 3}, devices=[4, 2, 0])
    for text, wanted in (("f32[12{x}, 6]", "f32[12, 6{y}]"), ("f32[12, 6]", "f32[12{y}, 6]")):
        check(rd.plan(rd.ArrayType.parse(text, source), rd.ArrayType.parse(wanted, target)), 0)


def test_a_step_needs_at_most_two_transpositions_and_none_in_order() -> None:
    mesh = rd.Mesh(x=4)
    for text, wanted, transposed in (
        ("f32[8{x}, 8]", "f32[8, 8]", 0),  # what arrives is in front already
        ("f32[8, 8{x}]", "f32[8, 8]", 1),
        ("f32[8{x}, 8]", "f32[8, 8{x}]", 1),
        ("f32[8, 8{x}, 8]", "f32[8, 8, 8{x}]", 2),
    ):
        plan = rd.plan(*(rd.ArrayType.parse(t, mesh) for t in (text, wanted)))
        (part,) = tile_program(plan.steps, plan.types)
        assert sum(isinstance(op, Transpose) for op in part.operations) == transposed


def test_views_that_no_stride_can_say_are_copied() -> None:
    mesh = rd.Mesh(x=2)
    data = np.arange(12).reshape(2, 6)
    views, tiles = Views(), Tiles.stacked(data, mesh)
    turned = views.transpose(views.reshape(tiles, (2, 3)), (1, 0))
    for shape in ((2, 3), (6,), (1, 6, 1)):
        made = views.reshape(turned, shape).settled().data
        expected = data.reshape(2, 2, 3).transpose(0, 2, 1).reshape(2, *shape)
        assert np.array_equal(made, expected)
    assert views.reshape(turned, (3, 2)).data is data  # nothing is copied where a stride can


def test_an_exchange_is_the_same_at_both_ends_of_a_mesh_change() -> None:
    mesh, other = rd.Mesh(x=4), rd.Mesh({"y": 4}, devices=[3, 2, 1, 0])
    src, dst = rd.ArrayType.parse("f32[8{x}]", mesh), rd.ArrayType.parse("f32[8{y}]", other)
    check(make_plan(src, dst, "direct", [exchange_traffic(src, dst).exchange]), 0)
