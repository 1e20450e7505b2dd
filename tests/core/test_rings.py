"""Rings of a torus: prices are what the links carry, and device ids alone say who is on which."""

from __future__ import annotations

import random
from itertools import product
from math import inf, prod

import pytest

import redistrib as rd
from redistrib.synth.plan.links import Level
from redistrib.synth.plan.profile import COMMUNICATING, find_profile
from redistrib.synth.planner.problem import make_problem
from redistrib.types.digits import DeviceDigit, cut
from tests.generators import random_pair
from tests.oracle.questions import random_type, relabelled
from tests.repetitions import repetitions

W = 1e11
OUTSIDE = rd.Link(2e-5, 1e9)


def torus(*sides: int, wraps: int = 4, hop: float = 0.0) -> rd.Profile:
    """A profile of one torus, and links between several of them."""
    level = Level(prod(sides), rd.Link(1e-6, W), torus=sides, wraps=wraps, hop=hop)
    return rd.Profile("x".join(map(str, sides)), OUTSIDE, levels=(level,))


TREE = rd.Profile(
    "tree",
    OUTSIDE,
    levels=(
        Level(4, rd.Link(1e-6, W), hop=2e-6),
        Level(32, rd.Link(2e-6, 1e10), torus=(2, 4), hop=1e-6),
    ),
    efficiency=(("all_to_all", 0.5),),
)
MACHINES = (torus(4, 4, hop=5e-7), torus(2, 8), torus(6, 6, wraps=6, hop=2e-6), TREE)


def carried(side: int, digit: tuple[int, int], closed: bool) -> float:
    """The most tiles that a link of a ring carries in an all_to_all over a digit of its devices.

    The digit is its stride and its size. Each piece takes the shorter way, or half of it either.
    """
    stride, size = digit
    loads = {(at, step): 0.0 for at in range(side) for step in (1, -1)}
    for start, value in product(range(side), range(size)):
        end = start + (value - start // stride % size) * stride
        ways = [(end - start, 1.0)]
        if closed:
            around = (end - start) % side
            ways = [(around, 0.5), (around - side, 0.5)]
            if 2 * around != side:
                ways = [(min(ways, key=lambda way: abs(way[0]))[0], 1.0)]
        for distance, share in ways:
            step = 1 if distance > 0 else -1
            for hop in range(abs(distance)):
                loads[(start + hop * step) % side, step] += share / size
    return max(loads.values())


@pytest.mark.parametrize("closed", [True, False])
def test_an_all_to_all_takes_what_its_busiest_link_takes(closed: bool) -> None:
    """A tile of B bytes, one direction of a link having half of the bandwidth of a ring."""
    side = 16
    links = torus(2, side, wraps=side if closed else 99).on(rd.Mesh(y=2, x=side))
    for stride, size in ((1, 16), (4, 4), (8, 2), (2, 8), (1, 8), (1, 4), (2, 2), (1, 2)):
        digit = DeviceDigit("x", side // (stride * size), size)
        _, bandwidth = links.speed([digit], "all_to_all")
        seconds = (size - 1) / size / bandwidth
        wraps = closed and stride * size == side
        assert seconds == pytest.approx(carried(side, (stride, size), wraps) / (W / 2))


def test_gathers_use_both_directions_all_rings_and_share_what_passes_them() -> None:
    links = torus(16, 16, wraps=16).on(rd.Mesh(y=16, x=16))
    x, y = (DeviceDigit(axis, 1, 16) for axis in "xy")

    def share(*digits: DeviceDigit) -> float:
        return links.speed(digits, "all_gather")[1] / W

    assert (share(x), share(x, y)) == (1, 2)
    far, near = cut(x, [4])
    assert share(near) == 1 / 2  # a line of 4
    assert share(far) == 1 / 4  # every fourth of 16, and three others like it
    assert share(far, near) == share(x)
    assert share(near, y) == 3 / 2


def test_latency_grows_with_the_hops_of_a_ring_and_with_the_depth_of_a_tree() -> None:
    links = torus(16, 16, wraps=16, hop=1e-6).on(rd.Mesh(y=16, x=16))
    x, y = (DeviceDigit(axis, 1, 16) for axis in "xy")

    def latency(links: rd.Profile, *digits: DeviceDigit) -> float:
        return links.speed(digits, "all_gather")[0]

    assert latency(links, x) == pytest.approx(8e-6)
    assert latency(links, x, y) == pytest.approx(16e-6)
    assert latency(links, DeviceDigit("x", 8, 2)) == pytest.approx(1e-6)
    assert latency(links, DeviceDigit("x", 2, 8)) == pytest.approx(7e-6)
    tree = TREE.on(rd.Mesh(x=4))
    assert latency(tree, DeviceDigit("x", 1, 4)) == pytest.approx(3e-6)
    assert latency(tree, DeviceDigit("x", 2, 2)) == pytest.approx(1e-6)


def test_a_slice_of_a_profile_is_a_torus_of_its_own() -> None:
    whole, part = (find_profile(name) for name in ("tpu-v5p", "tpu-v5p:4x4x8"))
    assert (part.name, part.levels[0].devices) == ("tpu-v5p:4x4x8", 128)
    assert part.levels[0].link == whole.levels[0].link
    line = DeviceDigit("x", 1, 8)
    bandwidths = [
        profile.on(rd.Mesh(y=16, x=8)).speed([line], "all_gather")[1] for profile in (whole, part)
    ]
    assert bandwidths[1] == 2 * bandwidths[0]
    assert rd.Profile.from_data(part.to_data()) == part
    for name in ("tpu-v5p:4x", "dgx-h100:2x4", "trainium2:0x4"):
        with pytest.raises(rd.RedistribError, match=r"torus|positive"):
            find_profile(name)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"torus": [4, 3]}, "the devices of its level"),
        ({"torus": [16, 0]}, "positive numbers"),
        ({"torus": 16}, "a list of numbers"),
        ({"torus": [4, 4], "wraps": 0}, "the wraps of a level"),
        ({"hop": -1}, "at least 0"),
        ({"ring": [4, 4]}, "got 'ring'"),
    ],
)
def test_a_level_says_what_is_wrong_with_its_rings(given: dict[str, object], message: str) -> None:
    level = {"devices": 16, "latency": 1e-6, "bandwidth": 1e11, **given}
    with pytest.raises(rd.RedistribError, match=message):
        rd.Profile.from_data({"latency": 1e-5, "bandwidth": 1e9, "levels": [level]})


def test_cutting_an_axis_of_a_ring_changes_no_speed() -> None:
    """Nor do names, nor the order of the mesh: the devices are where they were."""
    rng = random.Random(0)
    for _ in range(repetitions(60, 2000)):
        profile = rng.choice((torus(4, 4, hop=1e-6), torus(2, 8), torus(12, 2), TREE))
        mesh = rd.Mesh([("x", rng.choice((2, 4, 8, 16, 6))), ("y", rng.choice((2, 4, 8)))])
        size = mesh.axis_size("x")
        first = rng.choice([n for n in range(1, size + 1) if size % n == 0])
        axes = [("a", first), ("b", size // first), ("y", mesh.axis_size("y"))]
        order = rng.sample(range(3), 3)
        ids = rd.Mesh(axes)
        turned = [
            sum(value[order.index(n)] * prod(size for _, size in axes[n + 1 :]) for n in range(3))
            for value in product(*(range(axes[n][1]) for n in order))
        ]
        other = rd.Mesh([axes[n] for n in order], devices=turned)
        whole = [DeviceDigit("x", 1, size)]
        parts = [DeviceDigit(name, 1, n) for name, n in axes[:2] if n > 1]
        more = [DeviceDigit("y", 1, mesh.axis_size("y"))] if rng.random() < 0.5 else []
        for name in COMMUNICATING:
            speeds = [
                profile.on(m).speed([*digits, *more], name)
                for m, digits in ((mesh, whole), (ids, parts), (other, parts))
            ]
            assert speeds[0] == speeds[1] == speeds[2], (profile, mesh, axes, order, name)


def test_no_collective_is_faster_than_the_fastest() -> None:
    rng = random.Random(1)
    for _ in range(repetitions(60, 2000)):
        links = rng.choice(MACHINES).on(mesh := rd.Mesh(x=4, y=rng.choice((2, 4)), z=4))
        digits = [
            rng.choice(cut(DeviceDigit(axis, 1, size), [rng.choice((1, 2))]))
            for axis, size in rng.sample(mesh.axes, rng.randint(1, 3))
        ]
        fastest = links.fastest(mesh)
        for name in COMMUNICATING:
            latency, bandwidth = links.speed(digits, name)
            assert latency >= fastest.latency
            assert bandwidth <= fastest.bandwidth


@pytest.mark.parametrize("machine", MACHINES, ids=[machine.name for machine in MACHINES])
def test_laws_of_prices_hold_on_rings(machine: rd.Profile) -> None:
    """One price for all ways to ask; the checker derives it; no limit that is larger costs more."""
    for seed in range(repetitions(5, 2000)):
        rng = random.Random(seed)
        src, dst = random_pair(rng.choice, partial=seed % 3 > 0)
        plan, found = rd.plan(src, dst, profile=machine), rd.cost(src, dst, profile=machine)
        assert plan.seconds == found.seconds == plan.seconds_under(machine), (src, dst)
        assert rd.Plan.from_json(plan.to_json()) == plan
        rd.check(plan)
        rd.check(rd.plan(src, dst, profile=machine, strategy="direct"))
        assert make_problem(src, dst, profile=machine).floor() <= plan.seconds * (1 + 1e-9)
        assert rd.cost(*relabelled(rng, [src, dst]), profile=machine) == found, (src, dst)
        types = [src, dst, random_type(rng, src) or src]
        matrix = rd.Oracle(src.mesh, machine).matrix(types, types)
        row, column = rng.randrange(3), rng.randrange(3)
        assert matrix.plan(row, column).seconds == matrix.seconds[row, column] < inf


def test_the_checker_knows_a_line_from_a_ring() -> None:
    """And so it does every collective that is proposed on either."""
    mesh = rd.Mesh(y=2, x=8)
    for sides in ((2, 8), (16, 16)):
        for src, dst in (
            ("f32[64{x}, 64]", "f32[64, 64]"),
            ("f32[64{x}, 64]", "f32[64, 64{x}]"),
            ("f32[64, 64] sum{x}", "f32[64, 64{x}]"),
            ("f32[64, 64] sum{x}", "f32[64, 64]"),
        ):
            ends = [rd.ArrayType.parse(text, mesh) for text in (src, dst)]
            rd.check(rd.plan(*ends, strategy="collectives", profile=torus(*sides, wraps=8)))


def test_matrices_tell_digits_of_a_ring_apart() -> None:
    """Every pair of layouts of halves of a ring has the price that it has alone."""
    machine = torus(4, 4, hop=1e-6)
    halves = ("x:(1)2", "x:(2)2")
    texts = [f"f32[64{{{half}}}, 64]" for half in halves]
    texts += [f"f32[64, 64{{{half}}}]" for half in halves]
    mesh = rd.Mesh(y=4, x=4)
    types = [rd.ArrayType.parse(t, mesh) for t in (*texts, "f32[64{x}, 64]", "f32[64, 64]")]
    pairs = [(a, b) for a in types for b in types]
    oracle = rd.Oracle(mesh, machine, effort="fast")
    vector = oracle.cost_vector([a for a, _ in pairs], [b for _, b in pairs])
    assert vector.tolist() == [rd.cost(a, b, profile=machine).seconds for a, b in pairs]


@pytest.mark.parametrize("machine", MACHINES, ids=[machine.name for machine in MACHINES])
def test_digits_that_are_cut_otherwise_than_the_links_have_the_slowest(machine: rd.Profile) -> None:
    """As the checker has it: links cut an axis of 12 as 3 and 4, types as 4 and 3."""
    for sizes in ({"y": 12}, {"x": 4, "y": 12}, {"y": 12, "x": 3}, {"x": 2, "y": 18}):
        mesh = rd.Mesh(sizes)
        n = sizes["y"]
        for pre, size in ((1, 2), (1, 4), (2, 2), (3, 2), (2, 3), (2, 6), (4, 3), (1, n), (6, 3)):
            if n % (pre * size):
                continue
            src = rd.ArrayType.parse(f"f32[{72 * n}{{y:({pre}){size}}}, {n}]", mesh)
            for text in (f"f32[{72 * n}, {n}]", f"f32[{72 * n}, {n}{{y:({pre}){size}}}]"):
                dst = rd.ArrayType.parse(text, mesh)
                rd.check(rd.plan(src, dst, profile=machine, strategy="collectives"))
