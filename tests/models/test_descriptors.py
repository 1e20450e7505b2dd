"""Descriptor lists, run by a mover that knows bytes, and casts them: the targets are right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

import redistrib as rd
from redistrib.backends import simulator
from redistrib.backends.model_tiles import fill, packed, put
from redistrib.models.moves import PHASES
from redistrib.types.dtypes import itemsize, numpy_dtype
from tests.models.random_moves import random_case
from tests.repetitions import repetitions

IN_TWO_ORDERS = 100, 549
"""Seeds of models in whose schedules the transfers of two devices are in different orders."""

Entry = dict[str, Any]
Pair = tuple[int, int, Entry, Entry]
Tiles = dict[int, dict[str, np.ndarray]]


def pairs(plan: rd.ModelPlan) -> Iterator[Pair]:
    """Sender and receiver with their entries: the first of the one is the first of the other."""
    lists: dict[tuple[int, int], tuple[list[Entry], list[Entry]]] = {}
    for device in plan.devices:
        for entry in json.loads(plan.schedule(device).to_nixl())["transfers"]:
            sends = entry["role"] == "send"
            ends = (device, entry["peer"]) if sends else (entry["peer"], device)
            lists.setdefault(ends, ([], []))[0 if sends else 1].append(entry)
    for ends, both in lists.items():
        for give, take in zip(*both, strict=True):
            yield (*ends, give, take)


def moved(give: Entry, source: np.ndarray, take: Entry, target: np.ndarray) -> None:
    """Copy descriptor by descriptor, each of as many elements on both sides."""
    given, taken = (side["descriptors"] for side in (give, take))
    read, memory = (tile.reshape(-1).view(np.uint8) for tile in (source, target))
    assert give["casts"][-1] == take["casts"][0]
    for (start, size), (place, length) in zip(given, taken, strict=True):
        assert size // itemsize(give["dtype"]) == length // itemsize(take["dtype"])
        values = read[start : start + size].view(numpy_dtype(give["dtype"]))
        for dtype in (*give["casts"], *take["casts"]):
            values = values.astype(numpy_dtype(dtype))
        memory[place : place + length] = values.view(np.uint8)
    for first, to, size in take["copies"]:
        memory[to : to + size] = memory[first : first + size]


def run(plan: rd.ModelPlan, tiles: Tiles, made: Tiles) -> None:
    """All moves; what a device copies or fills itself is in its schedule alone."""
    crossing = list(pairs(plan))
    for move in plan.moves:
        for phase in range(PHASES):
            held = made if phase else tiles
            for sender, receiver, give, take in crossing:
                if (take["array"], take["phase"]) == (move.target, phase):
                    source = held[sender][give["array"]]
                    moved(give, source, take, made[receiver][move.target])
            for device in plan.devices:
                for transfer in plan.transfers(move, device):
                    if transfer.phase != phase:
                        continue
                    if transfer.sender is None:
                        fill(transfer, made[device][move.target])
                    elif transfer.sender == transfer.receiver:
                        values = packed(transfer, held[device][str(transfer.source)])
                        put(transfer, made[device][move.target], values)


def test_descriptors_of_two_devices_pair_up() -> None:
    repeated = 0
    for seed in (*range(repetitions(60, 1000)), *IN_TWO_ORDERS):
        case = random_case(seed, uneven=seed % 3 == 2)
        if case.plan.reductions:
            continue
        tiles = simulator.scatter_model(case.arrays, case.plan.src)
        meant = simulator.scatter_model(case.meant, case.plan.dst)
        made = {d: {n: np.zeros_like(t) for n, t in of.items()} for d, of in meant.items()}
        run(case.plan, tiles, made)
        for device, targets in meant.items():
            for name, tile in targets.items():
                assert np.array_equal(made[device][name], tile), (seed, device, name)
        repeated += sum(bool(take["copies"]) for *_, take in pairs(case.plan))
    assert repeated


def test_descriptors_are_as_long_as_both_sides_allow() -> None:
    here, there = rd.Mesh(x=2), rd.Mesh({"y": 2}, devices=[2, 3])
    src = {"w": ("f32[4{x}, 8]", here)}
    plan = rd.plan_model(src, {"w": ("f32[4, 8{y}]", there)})
    (give,) = [e for e in json.loads(plan.schedule(0).to_nixl())["transfers"] if e["peer"] == 3]
    (take,) = [e for e in json.loads(plan.schedule(3).to_nixl())["transfers"] if e["peer"] == 0]
    assert give["descriptors"] == [[16, 16], [48, 16]]
    assert take["descriptors"] == [[0, 16], [16, 16]]
    assert (take["copies"], "copies" in give) == ([], False)
