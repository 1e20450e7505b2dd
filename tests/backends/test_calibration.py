"""Profiles from measured times: a machine's prices are found again; what is not seen is said."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import redistrib as rd
from redistrib.backends.calibration import calibrated, fitted, moves, timed, to_toml
from redistrib.errors import BackendError
from redistrib.synth.plan.links import Level, Link
from redistrib.synth.plan.profile import COMMUNICATING, Execution, Profile
from tests.repetitions import repetitions

MESHES = (rd.Mesh(x=4), rd.Mesh(x=2, y=2), rd.Mesh(x=2, y=4))


def random_machine(rng: random.Random, mesh: rd.Mesh, exchange: Execution) -> Profile:
    """A profile of a machine with a level of nodes or none, and some collectives slower."""
    inside = Link(10 ** rng.uniform(-6, -3), 10 ** rng.uniform(8, 11))
    efficiency = tuple(
        (name, rng.uniform(0.1, 0.9)) for name in COMMUNICATING if rng.random() < 0.7
    )
    node = mesh.num_devices // mesh.axes[0][1]
    if node > 1 and rng.random() < 0.5:
        link = Link(inside.latency * rng.uniform(3, 20), inside.bandwidth / rng.uniform(3, 20))
        return Profile("m", link, (), exchange, (Level(node, inside),), efficiency)
    return Profile("m", inside, (), exchange, (), efficiency)


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_the_profile_that_times_are_of_is_found_again(mesh: rd.Mesh) -> None:
    """Its prices of other moves are those of the machine, whatever of the two numbers is split."""
    for seed in range(repetitions(1, 40)):
        rng = random.Random(seed)
        exchange: Execution = rng.choice(("call", "rounds"))
        machine = random_machine(rng, mesh, exchange)
        plans = moves(mesh, exchange, count=64)
        found = fitted(plans, [plan.seconds_under(machine) for plan in plans], exchange, "found")
        assert [level.devices for level in found.levels] == [v.devices for v in machine.levels]
        for plan in moves(mesh, exchange, count=12, seed=1):
            wanted = plan.seconds_under(machine)
            assert plan.seconds_under(found) == pytest.approx(wanted, rel=0.02), (seed, str(plan))


def test_moves_that_were_disturbed_count_less() -> None:
    mesh, rng = rd.Mesh(x=2, y=4), random.Random(3)
    machine = Profile("m", Link(1e-4, 1e9), exchange="call")
    plans = moves(mesh, "call")
    times = [plan.seconds_under(machine) * rng.choice((1, 1, 1, 1, 5)) for plan in plans]
    found = fitted(plans, times, "call", "found")
    assert found.link.latency == pytest.approx(1e-4, rel=0.1)
    assert found.link.bandwidth == pytest.approx(1e9, rel=0.2)


def test_half_of_a_time_is_as_wrong_as_twice_as_much() -> None:
    """Of times as often too long as too short prices are in the middle, not below."""
    mesh, noise = rd.Mesh(x=2, y=4), np.random.default_rng(0)
    machine = Profile("m", Link(1e-4, 1e9), efficiency=(("all_to_all", 0.5),), exchange="call")
    plans = moves(mesh, "call", count=300)
    wanted = [plan.seconds_under(machine) for plan in plans]
    found = fitted(plans, wanted * np.exp(noise.normal(0, 0.5, len(plans))), "call", "found")
    errors = np.log([p.seconds_under(found) / w for p, w in zip(plans, wanted, strict=True)])
    assert abs(errors.mean()) < 0.1


def test_a_profile_states_its_spread_and_what_was_not_measured(tmp_path: Path) -> None:
    mesh = rd.Mesh(x=2)
    plans = moves(mesh, "call", count=24)
    machine = Profile("m", Link(1e-4, 1e9), exchange="call")
    times = [[plan.seconds_under(machine) * f for f in (1, 2, 1, 2, 9)] for plan in plans]
    found = calibrated(plans, times, "call", "two")
    assert (
        "By every other round: 0.0001 s, 1e+09 bytes/s and 0.0002 s, 5e+08 bytes/s." in found.source
    )
    assert "24 moves of tiles up to 4096 KiB, 5 rounds in turns" in found.source
    assert "By half of the moves: 100% of the rest took within 1.5 times" in found.source
    assert "Not measured: collective_permute" in found.source
    path = tmp_path / "two.toml"
    path.write_text(to_toml(found, "a comment"))
    assert Profile.load(path) == found


def test_what_cannot_be_measured_is_refused() -> None:
    for mesh, message in (
        (rd.Mesh(x=1), "between two devices or more"),
        (rd.Mesh({"x": 2}, devices=[1, 0]), "with its devices in order"),
    ):
        with pytest.raises(BackendError, match=message):
            moves(mesh, "call")
    plans = moves(rd.Mesh(x=2), "call", count=12)
    with pytest.raises(BackendError, match="do not grow with the bytes"):
        fitted(plans, [1e-3 * plan.num_collectives for plan in plans], "call", "flat")


def test_plans_take_turns() -> None:
    seen: list[int] = []

    def run(number: int) -> float:
        seen.append(number)
        return number

    runs = [partial(run, number) for number in range(4)]
    assert timed(runs, 3) == [[n] * 3 for n in range(4)]
    assert all(sorted(turn) == [0, 1, 2, 3] for turn in np.array(seen).reshape(-1, 4).tolist())
