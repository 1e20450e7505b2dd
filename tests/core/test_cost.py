"""Prices of a step under a profile, in a plan and in the planner; and who sends how much."""

from __future__ import annotations

import random

import pytest

import redistrib as rd
from redistrib.synth.plan import collectives as c
from redistrib.synth.plan.links import Link
from redistrib.synth.plan.price import price_step, step_traffic
from redistrib.synth.plan.profile import Profile
from redistrib.types.digits import parse_device_digit as device
from tests.problems import random_mesh, random_shape, random_type, random_walk

SLOW, FAST = Link(latency=1e-3, bandwidth=1e6), Link(latency=1e-6, bandwidth=1e9)
X, Y, Z = (device(f"{axis}:(1)2") for axis in "xyz")


def test_a_collective_over_several_axes_is_as_slow_as_the_slowest() -> None:
    far = Link(latency=1e-6, bandwidth=1e3)
    profile = Profile("mixed", FAST, (("x", SLOW), ("y", far)))
    assert profile.seconds([Z], 1000) == pytest.approx(1e-6 + 1e-6)
    assert profile.seconds([X, Z], 1000) == pytest.approx(1e-3 + 1e-3)
    assert profile.seconds([Z, X, Y], 1000, latencies=3) == pytest.approx(3e-3 + 1)
    assert profile.seconds([], 1000) == pytest.approx(1e-6 + 1e-6)


def test_the_planner_prices_a_step_as_the_plan_does() -> None:
    profile = Profile("mixed", FAST, (("x", SLOW),))
    seen = set()
    for seed in range(200):
        rng = random.Random(seed)
        mesh = random_mesh(rng)
        start = random_type(rng, mesh, random_shape(rng, mesh), partial=None)
        plan = random_walk(rng, start, 4)
        for step, before, after in zip(plan.steps, plan.types, plan.types[1:], strict=False):
            if isinstance(step, c.Exchange):
                continue
            seen.add(step.collective)
            traffic = step_traffic(step, before, after)
            wanted = profile.seconds(step.axes, traffic.received_bytes, traffic.latencies)
            _, tile, seconds = price_step(step, before.tile_size, before.itemsize, profile)
            assert seconds == (wanted if step.communicates else 0)
            if before.size:
                assert tile == after.tile_size
    assert len(seen) == 8


@pytest.mark.parametrize(
    ("mesh", "src", "dst", "received", "sent"),
    [
        (rd.Mesh(x=2, y=3), "i8[6{x}]", "i8[6{y}]", 2, 2),
        (rd.Mesh(x=4, y=6), "i8[12{x}]", "i8[12{y}]", 2, 2),
        (rd.Mesh(x=2, y=2), "i8[4{x}]", "i8[4]", 2, 2),
    ],
)
def test_replicas_share_what_is_sent(
    mesh: rd.Mesh, src: str, dst: str, received: int, sent: int
) -> None:
    plan = rd.plan(*(rd.ArrayType.parse(t, mesh) for t in (src, dst)), strategy="direct")
    assert (plan.received_bytes, plan.sent_bytes) == (received, sent)
