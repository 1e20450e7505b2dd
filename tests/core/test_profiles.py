"""Profiles: the files, the levels of a machine, and what a step costs under them."""

import math
import random
from pathlib import Path

import pytest

import redistrib as rd
from redistrib.synth.plan.links import Level
from redistrib.synth.plan.profile import find_profile, profile_names
from redistrib.types.digits import DeviceDigit, cut, divisors

SYSTEMS = (
    *("tpu-v5e", "tpu-v5p", "tpu-v6e", "dgx-h100", "hgx-h200", "gb200-nvl72", "a100-cloud"),
    *("mi300x", "trainium2", "mpi-cluster"),
)


@pytest.mark.parametrize("name", SYSTEMS)
def test_shipped_profiles_say_where_their_numbers_come_from(name: str) -> None:
    profile = find_profile(name)
    assert profile.name == name
    assert "read" in profile.source.lower()
    inside = profile.levels[0].link
    assert inside.bandwidth > profile.link.bandwidth
    assert inside.latency < profile.link.latency
    assert rd.cost(*pair("f32[4096{x}]", "f32[4096]"), profile=name).seconds > 0


def test_a_measured_profile_names_its_command() -> None:
    profile = find_profile("two-core-mpich")
    assert "redistrib calibrate --backend mpi" in profile.source
    assert profile.uniform
    assert rd.cost(*pair("f32[4096{x}]", "f32[4096]"), profile=profile).seconds > 268e-6


def pair(src: str, dst: str, mesh: rd.Mesh | None = None) -> list[rd.ArrayType]:
    mesh = mesh or rd.Mesh(x=2, y=4)
    return [rd.ArrayType.parse(text, mesh) for text in (src, dst)]


def test_names_are_those_that_errors_list() -> None:
    assert set(SYSTEMS) < set(profile_names())
    with pytest.raises(rd.RedistribError) as error:
        rd.plan(*pair("f32[8{x}]", "f32[8]"), profile="no such profile")
    assert all(name in str(error.value) for name in profile_names())


def test_an_axis_has_the_link_of_the_first_level_that_holds_its_lines() -> None:
    node = rd.Link(1e-6, 1e11)
    profile = rd.Profile("p", rd.Link(1e-5, 1e9), levels=(Level(8, node),))

    def fast(mesh: rd.Mesh) -> list[str]:
        return [axis for axis, link in profile.on(mesh).axes if link == node]

    assert fast(rd.Mesh(data=4, model=8)) == ["model"]
    assert fast(rd.Mesh(data=2, tp=2, sp=4)) == ["tp", "sp"]
    assert fast(rd.Mesh(model=16)) == ["model:(2)8"]  # 8 of it are in a node
    assert fast(rd.Mesh(a=2, b=3, c=2)) == ["c"]  # 6, 8 and 10 are a line along b
    on_node = profile.on(rd.Mesh(x=2, y=4))  # all of it is one node
    assert (on_node.link, on_node.axes, on_node.uniform) == (node, (), True)
    transposed = [row * 8 + column for column in range(8) for row in range(2)]
    assert fast(rd.Mesh({"x": 8, "y": 2}, devices=transposed)) == ["x"]


def test_levels_of_devices_in_order_are_those_of_the_list_of_their_ids() -> None:
    """Consecutive ids need no enumeration; with the ids spelled out the answer is the same."""
    rng = random.Random(1)
    for _ in range(300):
        sizes = [rng.choice((1, 2, 3, 4, 6)) for _ in range(rng.randint(1, 3))]
        mesh = rd.Mesh(zip("xyz", sizes, strict=False))
        groups = sorted({rng.randint(1, 20) for _ in range(2)})
        levels = tuple(Level(k, rd.Link(1 / k, 1)) for k in groups)
        profile = rd.Profile("p", rd.Link(2, 1), levels=levels)
        # counted from a multiple of every group the ids are a list, in the same groups
        spelled = rd.Mesh(mesh.axes, devices=[math.lcm(*groups) + n for n in mesh.ids])
        for axis, size in mesh.axes:
            if size > 1:
                got, wanted = (profile.on(m) for m in (mesh, spelled))
                for part in cut(DeviceDigit(axis, 1, size), [rng.choice(divisors(size))]):
                    assert got.link_of(part) == wanted.link_of(part), (mesh, groups)


def test_a_name_overrides_the_level() -> None:
    profile = rd.Profile.from_toml(
        """
        latency = 1e-5
        bandwidth = 1e9
        levels = [{devices = 8, latency = 1e-6, bandwidth = 1e11}]
        axes.model = {latency = 2e-6, bandwidth = 5e10}
        """
    ).on(rd.Mesh(data=4, model=8))
    assert profile.axes == (("model", rd.Link(2e-6, 5e10)),)


def test_an_exchange_is_priced_on_the_axes_that_it_crosses() -> None:
    slow = rd.Profile("slow x", rd.Link(1e-6, 1e11), axes=(("x", rd.Link(1e-3, 1e9)),))
    mesh = rd.Mesh(x=2, y=4)
    across = rd.cost(*pair("f32[64{x}]", "f32[64]", mesh), strategy="direct", profile=slow)
    assert across.seconds > 1e-3
    inside = rd.cost(*pair("f32[64{x}, 8{y}]", "f32[64{x}, 8]"), strategy="direct", profile=slow)
    assert inside.seconds < 1e-4


def test_an_exchange_is_one_call_or_rounds() -> None:
    ends = pair("f32[64{y}]", "f32[64]")
    link = rd.Link(1.0, 1e12)
    call, rounds = (
        rd.cost(*ends, strategy="direct", profile=rd.Profile("p", link, exchange=kind)).seconds
        for kind in ("call", "rounds")
    )
    assert (round(call), round(rounds)) == (1, 4)


def test_efficiency_slows_a_collective_down() -> None:
    text = "latency = 0\nbandwidth = 1e9\nefficiency = {all_gather = 0.5}"
    half = rd.Profile.from_toml(text)
    whole = rd.Profile("p", rd.Link(0, 1e9))
    ends = pair("f32[64{y}]", "f32[64]")
    costs = [rd.cost(*ends, strategy="collectives", profile=p).seconds for p in (half, whole)]
    assert costs[0] == 2 * costs[1]
    # The bound of the exact search still holds, so it agrees.
    assert rd.cost(*ends, strategy="exact", profile=half).seconds == costs[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latency = 1", "a profile has bandwidth"),
        ("latency = 1\nbandwidth = 0", "a bandwidth (bytes/s) above 0"),
        ("latency = -1\nbandwidth = 1", "a latency (s) of at least 0"),
        ("latency = nan\nbandwidth = 1", "latency is a finite number; got nan"),
        ("latency = '1'\nbandwidth = 1", "latency is a finite number; got '1'"),
        ("latency = 1\nbandwidth = 1\nspeed = 2", "got 'speed'"),
        ("latency = 1\nbandwidth = 1\nexchange = 'maybe'", "exchange is call or rounds"),
        ("latency = 1\nbandwidth = 1\naxes = 3", "axes of a profile is a dict; got 3"),
        ("latency = 1\nbandwidth = 1\naxes.x = 3", "axes.x is a table"),
        ("latency = 1\nbandwidth = 1\nlevels = [{devices = 0, latency = 1, bandwidth = 1}]", "0"),
        ("latency = 1\nbandwidth = 1\nlevels = [{latency = 1, bandwidth = 1}]", "has devices"),
        ("latency = 1\nbandwidth = 1\nefficiency.all_gather = 2", "above 0 and at most 1; got 2"),
        ("latency = 1\nbandwidth = 1\nefficiency.gather = 1", "got 'gather'"),
        ("latency 1", "Expected '='"),
    ],
)
def test_malformed_profiles_say_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "profile.toml"
    path.write_text(text)
    with pytest.raises(rd.RedistribError) as error:
        rd.Profile.load(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_numbers_that_are_too_long_to_read_are_errors_of_the_file() -> None:
    long = "9" * 5000
    with pytest.raises(rd.RedistribError, match="digits"):
        rd.Profile.from_toml(f"latency = {long}\nbandwidth = 1e9")
    with pytest.raises(rd.RedistribError, match="a plan is JSON"):
        rd.Plan.from_json(f'{{"format": {long}}}')
    with pytest.raises(rd.RedistribError, match="a plan is JSON"):
        rd.Plan.from_json("[" * 100_000)
