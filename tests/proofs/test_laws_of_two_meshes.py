"""The proofs of exchanges between two meshes with the product's numbers: random pairs of meshes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from math import prod

import numpy as np
import pytest

import redistrib as rd
from proofs import bound, exchange
from redistrib.synth.plan.pieces import exchange_senders
from redistrib.synth.plan.routing import exchange_traffic
from redistrib.types.digits import DeviceDigit
from tests.generators import random_layout
from tests.proofs.cases import value
from tests.proofs.evaluate import require

SHAPE = (24, 24)


def two_meshes(count: int) -> Iterator[tuple[rd.ArrayType, rd.ArrayType]]:
    """Types on meshes of other devices, or of some that both have."""
    rng = random.Random(5)
    while count:
        meshes = [
            rd.Mesh(
                dict(zip(names, sizes, strict=False)), devices=range(first, first + prod(sizes))
            )
            for names, sizes, first in (
                ("xy", rng.choice(((2, 3), (4, 2), (6, 2), (12,))), 0),
                ("ab", rng.choice(((3, 2), (4,), (8, 3), (2, 6))), rng.choice((0, 4, 100))),
            )
        ]
        layouts = [random_layout(rng.choice, mesh, len(SHAPE), partial=False) for mesh in meshes]
        if any(n % k for _, _, products in layouts for n, k in zip(SHAPE, products, strict=True)):
            continue
        src, dst = (
            rd.ArrayType(mesh, "f32", SHAPE, dims)
            for mesh, (dims, _, _) in zip(meshes, layouts, strict=True)
        )
        if src.mesh != dst.mesh:
            count -= 1
            yield src, dst


def row_major(digits: list[DeviceDigit], position: int, mesh: rd.Mesh) -> int:
    number = 0
    for digit in digits:
        number = number * digit.size + value(digit, position, mesh)
    return number


def test_senders_across_are_those_of_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redistrib.synth.plan.routing.MAX_ROUTED", 0)  # by digits
    seen: Counter[str] = Counter()
    for src, dst in two_meshes(150):
        step = exchange_traffic(src, dst).exchange
        mine, theirs = ([pair[side] for pair in step.replicas] for side in (0, 1))
        copies = prod(digit.size for digit in mine)
        for receiver in range(0, dst.mesh.num_devices, 3):
            if dst.mesh.ids[receiver] in src.mesh.ids:
                continue  # it may be its own sender
            wanted = [indices[-1:] for indices in dst.tile(receiver)]
            senders = exchange_senders(step, src, np.array(receiver), wanted, src.shape)
            sender = int(senders.reshape(-1)[0])
            copy, named = (
                row_major(mine, sender, src.mesh),
                row_major(theirs, receiver, dst.mesh),
            )
            assert copy == named
            same = [
                other
                for other in range(dst.mesh.num_devices)
                if row_major(theirs, other, dst.mesh) == named
            ]
            rest, rests = same.index(receiver), dst.mesh.num_devices // copies
            require(
                exchange.copies_across_serve_alike,
                receiver=named * rests + rest,
                named=named,
                copy=copy,
                rests=rests,
                rest=rest,
            )
            for device, index in src.placements:
                element, weight = int(wanted[index.dim][0]), src.shape[index.dim] // index.end
                above, rest = divmod(element, weight)
                prefix, digit = divmod(above, index.size)
                require(
                    exchange.a_sender_across_holds_the_element,
                    wanted=digit,
                    owners=index.size,
                    copy=copy,
                    copies=copies,
                    device=row_major([device, *mine], sender, src.mesh),
                    index=element,
                    weight=weight,
                    above=above,
                    rest=rest,
                    prefix=prefix,
                )
                seen["owners"] += 1
            seen["copies"] += copies > 1
    assert seen["owners"] >= 100, seen
    assert seen["copies"] >= 50, seen


def test_copies_across_serve_as_many_receivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `exchange.copies_across_serve_alike` concludes, counted over elements and receivers."""
    monkeypatch.setattr("redistrib.synth.plan.routing.MAX_ROUTED", 0)
    seen = 0
    for src, dst in two_meshes(60):
        if src.mesh.shares_devices(dst.mesh):
            continue
        found = exchange_traffic(src, dst)
        served = np.zeros(src.mesh.num_devices, int)
        for receiver in range(dst.mesh.num_devices):
            wanted = np.ix_(*dst.tile(receiver))
            senders = exchange_senders(found.exchange, src, np.array(receiver), wanted, src.shape)
            senders = np.broadcast_to(senders, dst.tile_shape).reshape(-1)
            served += np.bincount(senders, minlength=len(served))
        assert set(served.tolist()) <= {0, found.sent}
        seen += bool(found.exchange.replicas)
    assert seen >= 10


def test_the_worst_device_across_misses_what_the_proof_says() -> None:
    shared = 0
    for src, dst in two_meshes(150):
        tile, worst, least = dst.tile_size, 0, dst.tile_size
        positions = {device: position for position, device in enumerate(src.mesh.ids)}
        for receiver, device in enumerate(dst.mesh.ids):
            part = 0
            if device in positions:
                held = src.tile(positions[device])
                part = prod(
                    len(np.intersect1d(a, b)) for a, b in zip(dst.tile(receiver), held, strict=True)
                )
                shared += part > 0
            require(
                bound.the_worst_device_across,
                T=tile,
                worst=worst,
                least=least,
                part=part,
                mine=part,
                both=device in positions,
            )
            worst, least = max(worst, tile - part), min(least, part)
        assert worst == exchange_traffic(src, dst).received
    assert shared >= 20
