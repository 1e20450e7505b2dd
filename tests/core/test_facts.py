"""Each collective is stated five times, on purpose, and all statements say the same.

By its class, by the checker, by the certificate, by the proofs, and by what the simulator counts
while data moves.
"""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction
from math import prod

import numpy as np

import redistrib as rd
from proofs import transposition, volume
from redistrib.backends import simulator
from redistrib.checker.certificate import certify
from redistrib.synth.plan import collectives as c
from redistrib.synth.plan.data import Plan, make_plan
from redistrib.synth.plan.fields import write_fields
from redistrib.synth.plan.transpose import dual
from redistrib.types.digits import DeviceDigit, piece_of
from tests.problems import (
    array_of,
    expected_tiles,
    random_mesh,
    random_shape,
    random_step,
    random_type,
)

ROLES = {transposition.FREE: "free", transposition.OWNER: "owner", transposition.PARTIAL: "partial"}
RECEIVED = {
    "all_gather": volume.gather,
    "all_to_all": volume.all_to_all,
    "reduce_scatter": volume.all_to_all,
    "all_reduce": lambda tile, k: volume.all_to_all(tile, k) + volume.gather(tile / k, k),
}
"""What the proofs say is received, where groups are of one size and chunks of whole elements."""


def one_step(rng: random.Random) -> Plan | None:
    """A plan of one random step, without a limit that it could exceed."""
    mesh = random_mesh(rng)
    start = random_type(rng, mesh, random_shape(rng, mesh), partial=None)
    step = random_step(rng, start)
    if step is None or not start.size:
        return None
    try:
        after = step.apply(start)
    except rd.LayoutError:  # parts of two digits of one axis need not be nested
        return None
    limit = max(start.tile_bytes, after.tile_bytes)
    return make_plan(start, after, "auto", [step], memory_limit=limit)


def role(t: rd.ArrayType, digit: DeviceDigit) -> str:
    """What a part of an axis does in a type."""
    if any(piece_of(placement, digit) for placement in t.placements):
        return "owner"
    nothing = c.IndexDigit(0, 1, 1)
    partial = any(piece_of((d, nothing._replace(size=d.size)), digit) for d in t.partial)
    return "partial" if partial else "free"


def test_all_statements_of_a_collective_agree() -> None:
    seen: Counter[str] = Counter()
    for seed in range(900):
        rng = random.Random(seed)
        plan = one_step(rng)
        if plan is None:
            continue
        (step,), (before, after) = plan.steps, plan.types
        name = step.collective
        seen[name] += 1
        # the checker: type, traffic, latencies, digits crossed (in the seconds)
        assert rd.check(plan)["received_bytes"] == plan.received_bytes
        # the simulator: data and traffic
        array = array_of(rng, before)
        tiles = simulator.run(plan, simulator.scatter(array, before))
        if not after.partial:
            for got, want in zip(tiles, expected_tiles(array, after), strict=True):
                np.testing.assert_array_equal(got, want)
        measured = simulator.measure(plan)
        assert (measured.received_bytes, measured.sent_bytes) == (
            plan.received_bytes,
            plan.sent_bytes,
        )
        assert bool(measured.received_bytes) <= step.communicates
        # JSON
        again = type(step).from_data(write_fields(step.fields, step))
        assert again == step
        if isinstance(step, c.Exchange):
            continue
        # the class
        received, tile = step.tile_traffic(before.tile_size)
        assert (received * before.itemsize, tile) == (plan.received_bytes, after.tile_size)
        # the proofs: roles, traffic, transpose
        if name != "collective_permute":
            was, becomes = (ROLES[r] for r in transposition.RULES[name])
            for digit in step.axes:
                assert (role(before, digit), role(after, digit)) == (was, becomes)
        group = prod(digit.size for digit in step.axes)
        if name in RECEIVED and (name != "all_reduce" or before.tile_size % group == 0):
            assert RECEIVED[name](Fraction(before.tile_size), group) == received
        assert step.communicates == (name in {*RECEIVED, "collective_permute"})
    assert len(seen) == 9
    assert min(seen.values()) > 20


def test_the_transpose_of_a_step_leads_back_between_the_duals() -> None:
    seen: Counter[str] = Counter()
    for seed in range(600):
        plan = one_step(random.Random(seed))
        if plan is None or isinstance(plan.steps[0], c.Exchange):
            continue
        (step,), (before, after) = plan.steps, plan.types
        try:
            ends = dual(after), dual(before)
        except rd.LayoutError:  # of another reduction than sum
            continue
        back = step.transposed(before)
        assert back.collective == transposition.TRANSPOSES[step.collective]
        by_table = isinstance(step, c.CollectivePermute) and step.table is not None
        if by_table and before.free_digits:  # a sum over replicas is no permute of tiles
            continue
        assert back.apply(ends[0]) == ends[1]
        assert back.transposed(ends[0]) == step
        seen[step.collective] += 1
    assert len(seen) == 8


def test_the_certificate_proves_each_collective() -> None:
    seen: Counter[str] = Counter()
    for seed in range(400):
        plan = one_step(random.Random(seed))
        if plan is not None and seen[plan.steps[0].collective] < 4:
            certify(plan)
            seen[plan.steps[0].collective] += 1
    assert len(seen) == 9
    assert min(seen.values()) == 4
