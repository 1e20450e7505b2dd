"""Who sends what to whom, in models of ranks: each derives its part alone, and the parts agree."""

from __future__ import annotations

import random
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import redistrib as rd
from redistrib.backends.mpi.datatypes import Datatypes
from redistrib.backends.mpi.exchange import End, TileExchange
from redistrib.backends.mpi.flows import Channel
from redistrib.backends.mpi.overlaps import Overlap, view
from redistrib.backends.mpi.phases import between
from redistrib.types.tile import tile_of
from tests.budget import calls_of
from tests.problems import random_mesh, random_shape, random_type
from tests.repetitions import repetitions


def part_of(rank: int, src: rd.ArrayType, dst: rd.ArrayType) -> Any:
    """What a rank does, of as many as the larger mesh has positions."""
    size = max(src.mesh.num_devices, dst.mesh.num_devices)
    before, after = (End.on(t, range(t.mesh.num_devices), size, None, False) for t in (src, dst))
    comm: Any = SimpleNamespace(rank=rank, size=size)
    return between(before, after, Channel(comm, Datatypes()), src.numpy_dtype, 1 << 20)


def streams(exchange: TileExchange, rank: int) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """What a rank sends and receives, by sender and receiver, in order."""
    sends = {(rank, stream.peer): stream.overlaps for stream in exchange.sends}
    receives = {(stream.peer, rank): stream.overlaps for stream in exchange.receives}
    own = {(rank, rank): exchange.own} if exchange.own else {}
    return sends | own, receives | own


@pytest.mark.parametrize("seed", range(repetitions(25, 2000)))
def test_the_ranks_agree_and_every_element_arrives_once(seed: int) -> None:
    rng = random.Random(seed)
    mesh = random_mesh(rng)
    shape = random_shape(rng, mesh)
    src, dst = (random_type(rng, mesh, shape) for _ in range(2))
    sent: dict[tuple[int, int], list[Overlap]] = {}
    received: dict[tuple[int, int], list[Overlap]] = {}
    for rank in range(mesh.num_devices):
        sends, receives = streams(part_of(rank, src, dst), rank)
        sent |= sends
        received |= receives
    assert sent == received
    array = np.arange(src.size, dtype=np.int32).reshape(shape)
    for rank in range(mesh.num_devices):
        target = np.full(dst.tile_shape, -1, np.int32)
        for (sender, receiver), overlaps in received.items():
            if receiver == rank:
                tile = tile_of(array, src, sender)
                for overlap in overlaps:
                    into = view(target, overlap.put, overlap.shape)
                    assert (into == -1).all()
                    into[...] = view(tile, overlap.take, overlap.shape)
        assert np.array_equal(target, tile_of(array, dst, rank)), f"{src} -> {dst}"


@pytest.mark.parametrize(
    ("src", "dst"),
    [
        ("f32[{n}{{x}}, {n}{{y}}]", "f32[{n}{{y}}, {n}{{x}}]"),
        ("f32[{n}{{x}}, 64]", "f32[{n}, 64{{x}}]"),
        ("f32[{n}{{y}}, 64] sum{{x}}", "f32[{n}{{y,x}}, 64]"),
        ("f32[{n}, 64] sum{{x}}", "f32[{n}{{x}}, 64]"),
        ("f32[{n}, 64] sum{{x,y}}", "f32[{n}{{x,y}}, 64]"),
    ],
)
def test_a_part_costs_what_its_ranks_do_and_not_their_pairs(src: str, dst: str) -> None:
    calls = []
    for side in (16, 32):  # four times the ranks, sixteen times the pairs
        mesh = rd.Mesh(x=side, y=side)
        n = 4 * side * side
        a, b = (rd.ArrayType.parse(text.format(n=n), mesh) for text in (src, dst))
        calls.append(calls_of(partial(part_of, side * side // 3, a, b)))
    assert calls[1] <= 6 * calls[0], calls
