"""The pieces of an exchange and their rounds: laws checked on every piece of many pairs."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

import redistrib as rd
from redistrib.backends import simulator
from redistrib.backends.jax.colouring import padded_shape, rounds
from redistrib.synth.plan import replicas
from redistrib.synth.plan.collectives import Exchange
from redistrib.synth.plan.pieces import pieces_of
from redistrib.synth.plan.routing import exchange_size, exchange_traffic, lower_bound
from redistrib.types.digits import DeviceDigit, IndexDigit
from redistrib.types.refinement import refine
from redistrib.types.tile import groups, numbers, split
from tests import generators
from tests.problems import random_type
from tests.random_plans import random_mesh
from tests.verify import verify_runs

PAIRS = [(seed, devices) for devices in (2, 6, 8, 12) for seed in range(12)]


def random_pair(seed: int, devices: int) -> tuple[rd.ArrayType, rd.ArrayType]:
    rng = random.Random(seed)
    mesh = random_mesh(rng, devices)
    shape = rng.choice([(24,), (12, 24), (48, 6), (16, 48)])
    return random_type(rng, mesh, shape, "f32"), random_type(rng, mesh, shape, "f32")


def test_the_size_of_an_exchange_is_known_without_its_routing() -> None:
    sizes = set()
    for seed in range(200):
        src, dst = random_pair(seed, 8)
        refinement = refine(src, dst)
        if refinement.aligned and src.partial == dst.partial:
            traffic = exchange_traffic(src, dst, refinement)
            size = exchange_size(dst, refinement)
            assert size == (traffic.received, traffic.peers)
            sizes.add(size)
    assert len(sizes) > 10


@pytest.mark.parametrize(("seed", "devices"), PAIRS)
def test_pieces_fill_every_tile_once_at_the_lower_bound(seed: int, devices: int) -> None:
    src, dst = random_pair(seed, devices)
    found = pieces_of(exchange_traffic(src, dst).exchange, src, dst)
    filled = [np.zeros(found.after, int) for _ in range(devices)]
    for piece in found.pieces:
        filled[piece.receiver][np.ix_(*piece.put)] += 1
        # Both ends mean the same elements, block by block.
        for dim, (take, put) in enumerate(zip(piece.take, piece.put, strict=True)):
            size = found.block[dim]
            sent = src.tile(piece.sender)[dim].reshape(-1, size)[take]
            received = dst.tile(piece.receiver)[dim].reshape(-1, size)[put]
            assert np.array_equal(sent, received)
    assert all((tile == 1).all() for tile in filled)
    assert max(found.received(devices)) == lower_bound(src, dst)


@pytest.mark.parametrize(("seed", "devices"), PAIRS)
def test_rounds_hold_each_piece_once_and_each_device_once(seed: int, devices: int) -> None:
    src, dst = random_pair(seed, devices)
    found = pieces_of(exchange_traffic(src, dst).exchange, src, dst)
    away = [piece for piece in found.pieces if piece.sender != piece.receiver]
    result = rounds(away, found.block_size * 4)
    assert Counter(map(id, away)) == Counter(id(p) for pieces in result for p in pieces)
    for pieces in result:
        assert max(Counter(p.sender for p in pieces).values()) == 1
        assert max(Counter(p.receiver for p in pieces).values()) == 1
    if len({piece.shape for piece in away}) == 1:
        sends = Counter(p.sender for p in away)
        receives = Counter(p.receiver for p in away)
        assert len(result) == max(*sends.values(), *receives.values())


def test_large_blocks_are_not_padded_and_small_ones_save_rounds() -> None:
    mesh = rd.Mesh(r=3, c=4)
    src = rd.ArrayType.parse("f32[12{r}, 12{c}]", mesh)
    dst = rd.ArrayType.parse("f32[12{c}, 12{r}]", mesh)
    found = pieces_of(exchange_traffic(src, dst).exchange, src, dst)
    away = [piece for piece in found.pieces if piece.sender != piece.receiver]
    exact, mixed = rounds(away, 10**9), rounds(away, 1)
    assert all(p.shape == padded_shape(pieces) for pieces in exact for p in pieces)
    assert len(mixed) < len(exact)


def test_an_exchange_that_asks_the_wrong_device_is_refused() -> None:
    mesh = rd.Mesh(x=3, y=2)
    src, dst = (rd.ArrayType.parse(text, mesh) for text in ("f32[6{y}]", "f32[6{x}]"))
    step = exchange_traffic(src, dst).exchange
    (table,) = step.tables
    rows = tuple(tuple((value, (sender + 1) % 6) for value, sender in row) for row in table.rows)
    wrong = Exchange(step.placements, step.replicas, (type(table)(table.axes, table.owners, rows),))
    with pytest.raises(rd.BackendError, match="a sender of an exchange holds what it sends"):
        pieces_of(wrong, src, dst)


def test_split_and_join_are_inverse() -> None:
    t = rd.ArrayType.parse("f32[24{_2,x}, 12{y}]", rd.Mesh(x=2, y=3))
    tile = np.arange(t.tile_size).reshape(t.tile_shape)
    for digits in ([IndexDigit(0, 1, 2)], [IndexDigit(1, 3, 4), IndexDigit(0, 4, 3)], []):
        found = split(t, digits)
        pieces = found.pieces(tile)
        assert pieces.shape == (found.count, *found.piece_shape)
        assert np.array_equal(found.tile(pieces), tile)
    assert split(t, [IndexDigit(0, 1, 2)]).pieces(tile)[1].min() == tile[6].min()


@pytest.mark.parametrize(
    ("digit", "message"),
    [
        (IndexDigit(0, 2, 2), "not local"),
        (IndexDigit(0, 1, 3), "do not split"),
        (IndexDigit(1, 3, 3), "do not split"),
    ],
)
def test_a_split_at_other_digits_is_refused(digit: IndexDigit, message: str) -> None:
    t = rd.ArrayType.parse("f32[24{_2,x}, 12{y}]", rd.Mesh(x=2, y=3))
    with pytest.raises(rd.BackendError, match=message):
        split(t, [digit])


def test_groups_are_ordered_by_the_digits() -> None:
    mesh = rd.Mesh(x=6, y=2)
    digits = [DeviceDigit("y", 1, 2), DeviceDigit("x", 2, 3)]
    found = groups(mesh, digits)
    assert found.tolist() == [[0, 2, 4, 1, 3, 5], [6, 8, 10, 7, 9, 11]]
    for group in found:
        assert numbers(mesh, digits)[group].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("most", [0, 1 << 13])
def test_what_is_said_of_a_misaligned_exchange_is_what_runs(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tables for its replicas, and without, as for exchanges of very many pieces."""
    monkeypatch.setattr(replicas, "MAX_ROUTED", most)
    tables: Counter[bool] = Counter()
    for seed in range(250):
        src, dst = generators.random_pair(random.Random(seed).choice, partial=False)
        if refine(src, dst).aligned:
            continue
        plan = rd.plan(src, dst, strategy="direct")
        if not plan.num_collectives:
            continue
        tables[bool(plan.steps[0].tables)] += 1
        measured = simulator.measure(plan)
        assert measured.received_bytes == plan.received_bytes == plan.lower_bound_bytes
        assert measured.sent_bytes == plan.sent_bytes
        verify_runs(plan)
    assert tables[False] > 10
    assert (tables[True] > 5) == bool(most)


def test_a_misaligned_exchange_of_many_devices_has_no_table() -> None:
    src, dst = (
        rd.ArrayType.parse(text, rd.Mesh(x=2048, y=3))
        for text in ("f32[12288{x}, 12288{y}]", "f32[12288{y}, 12288{x}]")
    )
    plan = rd.plan(src, dst, strategy="direct")
    assert len(plan.to_json()) < 2000
    assert plan.received_bytes == plan.lower_bound_bytes
    assert rd.plan(src, dst).seconds < plan.seconds
