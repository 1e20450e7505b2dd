"""Links by level: an axis that runs over several costs what its parts cost as axes of their own."""

from __future__ import annotations

import random
from itertools import permutations

import pytest

import redistrib as rd
from redistrib.synth.plan.collectives import AllReduce
from redistrib.synth.plan.links import Level
from redistrib.synth.plan.profile import find_profile
from redistrib.synth.planner.problem import Strategy
from redistrib.types.digits import DeviceDigit, Factor, Local
from redistrib.types.mesh import whole_axes
from redistrib.types.refinement import common_cuts
from tests.generators import random_pair
from tests.repetitions import repetitions

TWO_LEVELS = rd.Profile(
    "two levels",
    rd.Link(2e-5, 1e9),
    levels=(Level(4, rd.Link(1e-6, 1e11)), Level(24, rd.Link(5e-6, 1e10))),
    efficiency=(("all_to_all", 0.5),),
)
TORUS = rd.Profile(
    "torus",
    rd.Link(2e-5, 1e9),
    levels=(
        Level(8, rd.Link(1e-6, 1e11), torus=(4, 2), wraps=4, hop=5e-7),
        Level(24, rd.Link(5e-6, 1e10), torus=(3,)),
    ),
)
PROFILES = (TWO_LEVELS, TORUS, "dgx-h100", "mpi-cluster")


def as_parts(t: rd.ArrayType, mesh: rd.Mesh, cuts: dict[str, int], scale: int = 1) -> rd.ArrayType:
    """A type with an axis x cut into the axes x0 and x1, at so many positions of x0."""

    def parts(factor: Factor) -> list[Factor]:
        if isinstance(factor, Local) or factor.axis not in cuts:
            return [factor]
        name, cut = factor.axis, cuts[factor.axis]
        found: list[Factor] = []
        if factor.pre < cut:
            size = min(factor.end, cut) // factor.pre
            found.append(DeviceDigit(f"{name}0", factor.pre, size))
        if factor.end > cut:
            pre = max(factor.pre, cut)
            found.append(DeviceDigit(f"{name}1", pre // cut, factor.end // pre))
        return found

    dims = [[part for factor in dim for part in parts(factor)] for dim in t.dims]
    partial = [part for factor in t.partial for part in parts(factor)]
    shape = [n * scale for n in t.shape]
    return rd.ArrayType(mesh, t.dtype, shape, dims, partial, t.reduction or "sum")


def level_cuts(mesh: rd.Mesh, profile: rd.Profile) -> dict[str, int]:
    """Per axis that runs over several levels, where its links change first."""
    found = {}
    for axis in whole_axes(mesh):
        starts = [part.pre for part in profile.on(mesh).parts_of(axis.axis) if part.pre > 1]
        if starts:
            found[axis.axis] = min(starts)
    return found


def split_pair(
    rng: random.Random, profile: rd.Profile
) -> tuple[list[rd.ArrayType], list[rd.ArrayType]]:
    """A random pair, and the same with axes cut where their links change."""
    while True:
        pair = random_pair(rng.choice)
        mesh = pair[0].mesh
        cuts = level_cuts(mesh, profile)
        bounds = common_cuts(pair)
        if cuts and all(c % b == 0 or b % c == 0 for axis, c in cuts.items() for b in bounds[axis]):
            break
    axes = []
    for axis, size in mesh.axes:
        parts = [(f"{axis}0", cuts[axis]), (f"{axis}1", size // cuts[axis])] if axis in cuts else []
        axes += parts or [(axis, size)]
    scale = rng.choice((1, 16, 512))
    finer = [as_parts(t, rd.Mesh(axes), cuts, scale) for t in pair]
    return [as_parts(t, mesh, {}, scale) for t in pair], finer


@pytest.mark.parametrize("profile", PROFILES, ids=str)
def test_an_axis_over_levels_is_planned_and_checked(profile: rd.Profile | str) -> None:
    """The checker derives the seconds of such plans from the levels on its own."""
    for seed in range(repetitions(40, 4000)):
        rng = random.Random(seed)
        pair, _ = split_pair(rng, find_profile(profile))
        for strategy in ("auto", "direct"):
            rd.check(rd.plan(*pair, strategy=strategy, profile=profile))


def test_a_line_over_four_nodes_costs_what_nodes_and_devices_cost() -> None:
    flat, square = rd.Mesh(x=32), rd.Mesh(n=4, g=8)
    for src, dst in (
        ("f32[65536{%s}, 64]", "f32[65536, 64]"),
        ("f32[65536, 64] sum{%s}", "f32[65536, 64]"),
        ("f32[65536, 64] sum{%s}", "f32[65536{%s}, 64]"),
        ("f32[65536{%s}, 64]", "f32[65536, 64{%s}]"),
        ("f32[65536{_2,%s}, 64]", "f32[65536{%s}, 64]"),
        ("f32[96{%s}, 64] sum{}", "f32[96{_3,%s}, 64]"),
    ):
        pairs = [
            [rd.ArrayType.parse(text.replace("%s", names), mesh) for text in (src, dst)]
            for mesh, names in ((flat, "x"), (square, "n,g"))
        ]
        for profile in ("dgx-h100", "a100-cloud", TWO_LEVELS):
            for effort in ("fast", "best"):
                plans = [rd.plan(*pair, profile=profile, effort=effort) for pair in pairs]
                assert plans[0].seconds == plans[1].seconds, (src, dst, profile)
            matrices = [rd.cost_matrix(pair, pair, profile=profile) for pair in pairs]
            assert (matrices[0] == matrices[1]).all()
            matrix = rd.Oracle(flat, profile).matrix(pairs[0], pairs[0])
            assert matrix.plan(0, 1).seconds == matrix.seconds[0, 1]
            assert len(rd.explain(*pairs[0], profile=profile).alternatives) > 1


@pytest.mark.parametrize("profile", [TWO_LEVELS, TORUS], ids=["levels", "torus"])
@pytest.mark.parametrize("strategy", ["auto", "direct"])
def test_cutting_an_axis_where_its_links_change_changes_no_price(
    strategy: Strategy, profile: rd.Profile
) -> None:
    for seed in range(repetitions(60, 4000)):
        coarse, finer = split_pair(random.Random(seed), profile)
        prices = [
            rd.cost(*pair, strategy=strategy, profile=profile).seconds for pair in (coarse, finer)
        ]
        assert prices[0] == prices[1], (*map(str, coarse), finer[0].mesh)


def test_digits_that_fit_no_cut_of_their_axis_are_planned_with_the_axis_whole() -> None:
    """On x=6 of two nodes of 3, a type of thirds and halves has no type on `x.1=2,x.2=3`."""
    links = rd.Profile("nodes of 3", rd.Link(2e-5, 1e9), levels=(Level(3, rd.Link(1e-6, 1e11)),))
    mesh = rd.Mesh(x=6)
    texts = (
        "f32[6{x:(1)3}, 6]",
        "f32[6, 6{x:(1)3}]",
        "f32[6{x:(3)2}, 6]",
        "f32[6{x}, 6]",
        "f32[6, 6] sum{x:(1)3}",
    )
    types = [rd.ArrayType.parse(text, mesh) for text in texts]
    prices = rd.cost_matrix(types, types, profile=links)
    for (row, src), (column, dst) in permutations(enumerate(types), 2):
        plan = rd.plan(src, dst, profile=links)
        rd.check(plan)
        assert prices[row, column] <= plan.seconds


def test_the_parts_of_an_axis_over_levels_are_named_as_the_axis() -> None:
    mesh = rd.Mesh(x=4, y=8)
    src, dst = (rd.ArrayType.parse(t, mesh) for t in ("f32[1024] min{y}", "f32[1024]"))
    [step] = rd.plan(src, dst, profile=TWO_LEVELS).steps
    assert isinstance(step, AllReduce)
    assert step.digits == (DeviceDigit("y", 1, 8),)


def on_others(t: rd.ArrayType, names: dict[str, str]) -> rd.ArrayType:
    """The type on as many devices of their own, its axes under other names."""
    ids = [t.mesh.num_devices + n for n in t.mesh.ids]
    mesh = rd.Mesh([(names[axis], size) for axis, size in t.mesh.axes], devices=ids)

    def named(factor: Factor) -> Factor:
        if isinstance(factor, Local):
            return factor
        return DeviceDigit(names[factor.axis], factor.pre, factor.size)

    dims, partial = [list(map(named, dim)) for dim in t.dims], list(map(named, t.partial))
    return rd.ArrayType(mesh, t.dtype, t.shape, dims, partial, t.reduction or "sum", dict(t.uneven))


@pytest.mark.parametrize("profile", PROFILES, ids=str)
def test_names_on_another_mesh_change_no_price(profile: rd.Profile | str) -> None:
    """Its axes have links of their own, whether they share names with others or not."""
    texts = ("f32[33{y}:ceil, 64{z}]", "f32[33{z}:ceil, 64]")
    uneven = [rd.ArrayType.parse(text, rd.Mesh(x=2, y=4, z=8)) for text in texts]
    for seed in range(repetitions(20, 2000)):
        src, dst = random_pair(random.Random(seed).choice) if seed else uneven
        axes = [axis for axis, _ in dst.mesh.axes]
        found = []
        for names in (axes, axes[1:] + axes[:1], [f"on.{axis}" for axis in axes]):
            there = on_others(dst, dict(zip(axes, names, strict=True)))
            plan = rd.plan(src, there, profile=profile)
            assert plan.seconds_under(profile) == plan.seconds
            rd.check(plan)
            found.append(plan.seconds)
        assert found[0] == found[1] == found[2], (*map(str, (src, dst)), found)


def test_uneven_types_over_several_levels_have_prices() -> None:
    mesh = rd.Mesh(x=16)
    types = [rd.ArrayType.parse(t, mesh) for t in ("f32[33{x}:ceil, 64]", "f32[33, 64{x}]")]
    oracle = rd.Oracle(mesh, "dgx-h100")
    plan = oracle.plan(*types)
    rd.check(plan)
    assert oracle.cost(*types).seconds == plan.seconds
    assert oracle.cost_matrix(types, types)[0, 1] == plan.seconds


def test_a_profile_names_parts_of_axes() -> None:
    text = """
        latency = 1e-6
        bandwidth = 1e11
        axes."x:(1)2" = {latency = 1e-5, bandwidth = 1e9}
    """
    profile = rd.Profile.from_toml(text)
    mesh = rd.Mesh(x=8)
    links = [profile.on(mesh).link_of(DeviceDigit("x", *part)) for part in ((1, 2), (2, 4), (1, 8))]
    assert links == [rd.Link(1e-5, 1e9), rd.Link(1e-6, 1e11), rd.Link(1e-5, 1e9)]
    inside = [rd.ArrayType.parse(t, mesh) for t in ("f32[64{x}]", "f32[64{x:(1)2}]")]
    assert rd.cost(*inside, profile=profile).seconds < 1e-5
    plan = rd.plan(inside[0], rd.ArrayType.parse("f32[64]", mesh), profile=profile)
    assert rd.check(rd.Plan.from_json(plan.to_json()))
    with pytest.raises(rd.RedistribError, match="one link, or a link for each part"):
        rd.Profile("p", profile.link, (("x", profile.link), ("x:(1)2", profile.link)))


def test_what_goes_to_another_mesh_crosses_the_link_between_their_devices() -> None:
    """Inside a group that holds both meshes it is the group's, else that of the next level."""
    rng = random.Random(4)
    far, levels = TWO_LEVELS.link, TWO_LEVELS.levels
    seen = set()
    for _ in range(repetitions(40, 2000)):
        first, second = rng.randrange(0, 40), rng.randrange(0, 40)
        sizes = rng.choice((1, 2, 4)), rng.choice((1, 2, 4))
        meshes = [
            rd.Mesh({name: n}, devices=[start + k for k in range(n)])
            for name, n, start in zip("xu", sizes, (first, second), strict=True)
        ]
        src, dst = (rd.ArrayType(mesh, "f32", [4096], [list(mesh.sizes)]) for mesh in meshes)
        plan = rd.plan(src, dst, profile=TWO_LEVELS)
        ids = {*meshes[0].ids, *meshes[1].ids}
        links = [level.link for level in levels if len({n // level.devices for n in ids}) == 1]
        link = (links or [far])[0]
        rd.check(plan)
        for term in plan.terms:
            if term.onto is not None:
                wanted = link.latency * term.latencies + term.timed_bytes / link.bandwidth
                assert term.seconds(TWO_LEVELS) == wanted, (meshes, str(plan))
                seen.add(link)
        assert plan.seconds_under(TWO_LEVELS) == plan.seconds
        cost = rd.Oracle(meshes[0], profile=TWO_LEVELS).cost(src, dst)
        assert cost.seconds == plan.seconds
    assert seen == {far, *(level.link for level in levels)}


def test_a_mesh_inside_a_node_is_far_from_another_node() -> None:
    """The link of a mesh with one kind of link is not that of what leaves it, named or by level."""
    near, far = rd.Link(1e-6, 1e11), rd.Link(1e-4, 1e9)
    node, other = rd.Mesh(x=4), rd.Mesh({"x": 4}, devices=[8, 9, 10, 11])
    ends = [rd.ArrayType.parse("f32[1024{x}]", mesh) for mesh in (node, other)]
    for profile in (
        rd.Profile("p", far, levels=(Level(8, near),)),
        rd.Profile("p", far, axes=(("x", near),)),
    ):
        plan = rd.plan(*ends, profile=profile)
        assert plan.seconds == far.latency + 1024 / far.bandwidth
        rd.check(plan)
        assert rd.Plan.from_json(plan.to_json()).seconds == plan.seconds
    # ... and both may be on one node, which is not the link across.
    beside = rd.ArrayType.parse("f32[1024{x}]", rd.Mesh({"x": 4}, devices=[4, 5, 6, 7]))
    plan = rd.plan(ends[0], beside, profile=rd.Profile("p", far, levels=(Level(8, near),)))
    assert plan.seconds == near.latency + 1024 / near.bandwidth


RINGS = rd.Profile(
    "rings", rd.Link(2e-5, 1e9), levels=(Level(64, rd.Link(1e-6, 1e11), (8, 8), hop=1e-6),)
)


@pytest.mark.parametrize(
    ("mesh", "digit", "passes"),
    [
        (rd.Mesh(x=8, y=8), "y", 4),  # a closed ring
        (rd.Mesh(x=8, y=8), "x,y", 8),
        (rd.Mesh(x=6, y=4), "x", 4 + 2),  # ids 0, 4, ..., 20: every second column of three rows
        (rd.Mesh(x=6, y=4), "x:(1)2", 4 + 2),  # ids 0 and 12: no further apart than all of x
        (rd.Mesh({"x": 3}, devices=[0, 9, 18]), "x", 2 + 2),  # a diagonal
        (rd.Mesh({"x": 3}, devices=[0, 1, 63]), "x", 4 + 4),  # 7 to either side, 4 around
        (rd.Mesh({"x": 4}, devices=[5, 2, 3, 7]), "x", 4),  # any order inside of one ring
        (rd.Mesh({"x": 4}, devices=[1, 2, 3, 4]), "x", 3),  # in order, but from no multiple of 4
    ],
)
def test_a_message_passes_as_many_links_as_its_digits_are_apart(
    mesh: rd.Mesh, digit: str, passes: int
) -> None:
    src, dst = (rd.ArrayType.parse(t, mesh) for t in (f"i8[1728{{{digit}}}]", "i8[1728]"))
    plan = rd.plan(src, dst, profile=RINGS)
    rd.check(plan)
    assert [step.collective for step in plan.steps if step.communicates] == ["all_gather"]
    assert round(plan.seconds / 1e-6) == passes  # and less than half a hop for the bytes


def test_what_crosses_rings_takes_no_longer_than_all_that_it_is_a_part_of() -> None:
    """On x=12,y=2,z=2 over rings of 16, x:(1)4 has ids 0, 12, 24 and 36, on three of the rings."""
    mesh = rd.Mesh(x=12, y=2, z=2)
    texts = "i8[72{y,x}]", "i8[72{y}] max{x:(4)3}", "i8[72{y}]"
    types = [rd.ArrayType.parse(text, mesh) for text in texts]
    for profile in ("tpu-v5e", "tpu-v5p", "tpu-v6e", "trainium2"):
        part, whole = (rd.plan(types[0], dst, profile=profile) for dst in types[1:])
        rd.check(part)
        assert part.seconds <= whole.seconds * 1.05


@pytest.mark.parametrize(
    ("profile", "devices", "texts"),
    [
        ("tpu-v5e", [3 * n for n in range(8)], ("f32[8{x}]", "f32[8]")),  # on beyond a ring's end
        ("tpu-v5p", [3 * n for n in range(8)], ("f32[8{x}]", "f32[8]")),
        (  # what lies beside the part that has a link has that of the profile
            rd.Profile("part", rd.Link(2e-5, 1e9), (("x:(1)4", rd.Link(1e-6, 1e11)),)),
            None,
            ("f32[8{x}]", "f32[8{x:(1)4}]"),
        ),
        (  # of levels with equal links
            rd.Profile(
                "tie",
                rd.Link(2e-5, 1e9),
                levels=(
                    Level(2, rd.Link(1e-6, 1e11)),
                    Level(6, rd.Link(2e-6, 1e10), torus=(3,), hop=3e-7),
                    Level(72, rd.Link(2e-6, 1e10), torus=(3, 4), hop=1e-6),
                ),
            ),
            None,
            ("f32[8{x:(1)2}]", "f32[8{x:(4)2}]"),
        ),
    ],
)
def test_planner_and_checker_find_the_same_links(
    profile: rd.Profile | str, devices: list[int] | None, texts: tuple[str, str]
) -> None:
    mesh = rd.Mesh({"x": 8}, devices=devices)
    src, dst = (rd.ArrayType.parse(text, mesh) for text in texts)
    for ends in ((src, dst), (dst, src)):
        assert rd.check(rd.plan(*ends, profile=profile))


def test_a_price_is_that_of_the_plan_where_types_cut_an_axis_otherwise_than_its_links() -> None:
    """Of x=12, 2 x 3 x 2 devices on three rings, the types cut off 4: the links' cut at 2 suits."""
    ids = [n // 4 + n % 4 * 24 for n in range(96)]
    mesh = rd.Mesh([("x", 12), ("y", 8)], devices=ids)
    src, dst = (
        rd.ArrayType.parse(t, mesh) for t in ("f32[16{y}, 12{x}, 3]", "f32[16{y}, 12, 3{x:(4)3}]")
    )
    for strategy in ("direct", "collectives", "auto"):
        plan = rd.plan(src, dst, strategy=strategy, profile="tpu-v5p:2x3x4")
        rd.check(plan)
        assert rd.cost(src, dst, strategy=strategy, profile="tpu-v5p:2x3x4").seconds == plan.seconds
    oracle = rd.Oracle(mesh, "tpu-v5p:2x3x4")
    matrix = oracle.matrix([src, dst], [src, dst])
    assert matrix.plan(0, 1).seconds == matrix.seconds[0, 1] == oracle.cost(src, dst).seconds
