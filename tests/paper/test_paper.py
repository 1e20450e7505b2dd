"""Strategy `paper`: its types, its rules, its rewriting, its search, and what it prints."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import click.testing
import pytest

import redistrib as rd
from redistrib.cli import commands
from redistrib.synth.plan.data import make_plan
from redistrib.synth.planner.paper import normal_form as nf
from redistrib.synth.planner.paper.calculus import (
    Gather,
    Move,
    PaperType,
    Permute,
    ReplaceTop,
    Slice,
    Step,
    SwapTops,
    SwapWithin,
    apply,
    apply_weak,
    interpret,
    prime_system,
)
from redistrib.synth.planner.paper.derivation import derive, lower
from redistrib.synth.planner.paper.search import synthesise
from tests.exhaustive.stages import MESHES, layouts
from tests.generators import random_pair, whole_axis_layouts
from tests.paper.programs import (
    checked,
    random_program,
    verify_normal_form,
    verify_paper,
)
from tests.repetitions import repetitions
from tests.verify import verify_plan, verify_runs

MESH = rd.Mesh(x=2, y=2, z=3, w=2)
SRC, DST = "f32[12{y,x}, 12{w,z}]", "f32[12{w,z}, 12{y,x}]"


def view(text: str, mesh: rd.Mesh = MESH) -> PaperType:
    t = rd.ArrayType.parse(text, mesh)
    return PaperType.of(t, prime_system(t))


def random_view(rng: random.Random) -> PaperType:
    """A type that a random program leads to, on a random mesh."""
    mesh = rd.Mesh({name: rng.choice((2, 3, 4, 6)) for name in "xyz"[: rng.randint(1, 3)]})
    shape = [rng.choice((1, 2, 3, 4, 6, 12, 24, 0, 5, 36)) for _ in range(rng.randint(1, 3))]
    t = PaperType.of(whole := rd.ArrayType(mesh, "f32", shape), prime_system(whole))
    return interpret(t, random_program(rng, t, rng.randint(0, 5)))[-1]


# --- types


def test_a_type_is_written_as_in_the_paper() -> None:
    assert str(view("f32[12{y,x}, 12{w,z}, 5]")) == "[3{x,y}12, 2{z,w}12, 5{}5]"
    assert str(view("f32[]")) == "[]"


def test_the_view_and_the_type_are_one() -> None:
    for at in range(len(MESHES)):
        for t in layouts(at)[::3]:
            seen = PaperType.of(t, prime_system(t))
            assert seen.array_type(t.dtype) == t
            assert seen.tile_shape == t.tile_shape
            assert all(axis.size in (2, 3, 5) for axis in seen.system)


@pytest.mark.parametrize(
    ("src", "dst", "fragments"),
    [
        ("f32[8{_2,x}]", "f32[8]", ("nothing local", "_2 in dimension 0", "auto")),
        ("f32[8]", "f32[8] sum{x}", ("no partial axes", "sum{x}", "auto")),
        ("f32[6{y:(1)2}]", "f32[6{y:(1)3}]", ("one cut of each mesh axis", "y", "[1, 2, 3, 6]")),
    ],
)
def test_what_the_paper_cannot_express(src: str, dst: str, fragments: tuple[str, ...]) -> None:
    mesh = rd.Mesh(x=2, y=6)
    ends = (rd.ArrayType.parse(text, mesh) for text in (src, dst))
    with pytest.raises(rd.LayoutError) as error:
        rd.plan(*ends, strategy="paper")
    for fragment in fragments:
        assert fragment in str(error.value)


# --- rules


@pytest.mark.parametrize(
    ("step", "fragment"),
    [
        (lambda a: Gather(0, a["y"]), "y is the minor-most axis of dimension 0"),
        (lambda a: Slice(0, a["x"]), "x is replicated"),
        (lambda a: Slice(0, a["z"]), "z is replicated"),
        (lambda a: Slice(2, a["v"]), "v divides the tile of dimension 2"),
        (lambda a: Move(0, 2, a["x"]), "x divides the tile of dimension 2"),
        (lambda a: SwapTops(0, 1, a["x"], a["z"]), "x and z have one size"),
        (lambda a: ReplaceTop(1, a["z"], a["v"]), "z and v have one size"),
        (lambda a: SwapWithin(0, a["x"], a["z"]), "x and z are axes of dimension 0"),
        (lambda a: Permute(((a["x"],), (a["z"], a["w"]), ())), "keeps the shape of the tile"),
        (
            lambda a: Permute(((a["z"], a["w"]), (a["x"], a["y"]), ())),
            "keeps the shape of the tile",
        ),
        (lambda a: Permute(((a["x"], a["x"]), (), ())), "each once"),
    ],
)
def test_the_strong_rules_refuse(step: object, fragment: str) -> None:
    mesh = rd.Mesh(x=2, y=2, z=3, w=2, v=2)
    t = view("f32[12{y,x}, 12{w,z}, 5]", mesh)
    axes = {axis.axis: axis for axis in t.system}
    with pytest.raises(rd.LayoutError) as error:
        apply(t, step(axes))  # type: ignore[operator]
    assert fragment in str(error.value)


def test_a_weak_rule_is_a_strong_one_between_permutes() -> None:
    rng = random.Random(0)
    tried, views = 0, repetitions(200, 1000)
    for _ in range(views):
        t = random_view(rng)
        for dim, d in enumerate(t.dims):
            for axis in d.axes:
                top = (axis, *(a for a in d.axes if a != axis))
                axes = tuple(top if at == dim else o.axes for at, o in enumerate(t.dims))
                strong = apply(apply(t, Permute(axes)), Gather(dim, axis))
                assert strong.weak() == apply_weak(t, Gather(dim, axis))
                assert strong.weak() == apply_weak(t.weak(), Gather(dim, axis))
                tried += 1
        for step in random_program(rng, t, 1):
            if isinstance(step, Gather | Slice | Move):
                assert apply(t, step).weak() == apply_weak(t.weak(), step)
    assert tried > 0.6 * views


def test_weak_rules_refuse_what_no_order_allows() -> None:
    t = view(SRC)
    x, y, z = t.dims[0].axes[0], t.dims[0].axes[1], t.dims[1].axes[0]
    assert apply_weak(t, Move(0, 1, y)).tile_shape == (6, 1)
    for step in (Gather(0, z), Move(1, 0, x), Slice(0, x)):
        with pytest.raises(rd.LayoutError):
            apply_weak(t, step)


@pytest.mark.parametrize("seed", range(repetitions(20, 60)))
def test_programs_of_the_calculus_are_plans_of_ours(seed: int) -> None:
    rng = random.Random(seed)
    t = random_view(rng)
    program = random_program(rng, t, rng.randint(0, 6))
    types = interpret(t, program)
    src, dst = types[0].array_type("f32"), types[-1].array_type("f32")
    limit = 4 * max(u.tile_size for u in types)
    plan = make_plan(src, dst, "paper", lower(t, program, "f32"), memory_limit=limit)
    verify_runs(plan)


# --- rewriting


def test_rewriting_random_programs_keeps_their_meaning() -> None:
    rng = random.Random(2112)
    for _ in range(repetitions(200, 1200)):
        t = random_view(rng)
        program = random_program(rng, t, rng.randint(0, 14))
        result = verify_normal_form(t, program)
        assert verify_normal_form(t, result) == result


def test_easy_programs_gather_all_and_slice_all() -> None:
    for route in derive(*(rd.ArrayType.parse(text, MESH) for text in (SRC, DST)))[:1]:
        assert [type(step) for step in route.steps] == [Gather] * 4 + [Slice] * 4
        assert str(route.types[4]) == "[12{}12, 12{}12]"


def _swap_tops_unrestored(t: PaperType, first: Step, second: Step) -> nf.Program | None:
    match first, second:
        case SwapTops(k, _, c, _), Slice(i, b) if i == k:
            return second, SwapWithin(i, b, c)
    return nf.rewrite(t, first, second)


def _replace_of_any_size(t: PaperType, first: Step, second: Step) -> nf.Program | None:
    match first, second:
        case ReplaceTop(k, c, r), Slice(i, b) if i == k and b != c:
            return Slice(i, r), SwapWithin(i, r, c), ReplaceTop(i, c, b)
    return nf.rewrite(t, first, second)


def _move_into_no_room(t: PaperType, first: Step, second: Step) -> nf.Program | None:
    match first, second:
        case Move(k, _, c), Slice(i, b) if i == k:
            return second, SwapWithin(i, b, c), first
    return nf.rewrite(t, first, second)


@pytest.mark.parametrize("wrong", [_swap_tops_unrestored, _replace_of_any_size, _move_into_no_room])
def test_the_check_of_rewrites_finds_wrong_rules(wrong: nf.Rule) -> None:
    """Three rules that the public OCaml port of the paper has, none of them right."""

    def run() -> None:
        rng = random.Random(0)
        for _ in range(3000):
            t = random_view(rng)
            nf.normal_form(t, random_program(rng, t, 10), checked(wrong))

    with pytest.raises(AssertionError, match=r"on .*, from .* became"):
        run()


# --- the search


def test_any_expressible_pair() -> None:
    """Random meshes with sub-axes, zero-size and indivisible dimensions, rank 0, one device."""
    pairs, refused, tried = 0, 0, repetitions(150, 700)
    for seed in range(tried):
        src, dst = random_pair(random.Random(seed).choice, partial=False)
        try:
            verify_paper(src, dst)
            pairs += 1
        except rd.LayoutError:
            refused += 1
    assert pairs > 0.4 * tried
    assert refused > 0.14 * tried


@pytest.mark.parametrize("mesh_at", range(len(MESHES)))
def test_a_sample_of_the_exhaustive_pairs(mesh_at: int) -> None:
    rng = random.Random(mesh_at)
    found = layouts(mesh_at)
    for _ in range(repetitions(10, 40)):
        verify_paper(rng.choice(found), rng.choice(found))


def sliced(t: PaperType) -> list[PaperType]:
    """Every type that slices lead to."""
    found = {t: None}
    for before in (todo := [t]):
        for axis in before.replicated:
            for dim in range(len(t.dims)):
                try:
                    after = apply(before, Slice(dim, axis))
                except rd.LayoutError:
                    continue
                if after not in found:
                    found[after] = None
                    todo.append(after)
    return list(found)


def least_cost(
    src: PaperType, dst: PaperType, by_tile: dict[tuple[int, ...], list[PaperType]]
) -> tuple[int, int]:
    """Received elements and collectives of the best normal form, by Dijkstra over strong types."""

    def steps(t: PaperType) -> Iterator[tuple[PaperType, int]]:
        tile = t.tile_size
        for source in range(len(t.dims)):
            for target in range(len(t.dims)):
                after, group = t, 1
                while source != target and after.dims[source].axes:
                    axis = after.dims[source].axes[0]
                    try:
                        after = apply(after, Move(source, target, axis))
                    except rd.LayoutError:
                        break
                    group *= axis.size
                    yield after, tile - tile // group
        yield from ((after, tile) for after in by_tile[t.tile_shape] if after != t)

    last = {
        t: (
            dst.tile_size - t.tile_size,
            sum(a.axes != b.axes for a, b in zip(t.dims, dst.dims, strict=True)),
        )
        for t in sliced(dst)
    }
    cost = dict.fromkeys(sliced(src), (0, 0))
    number = count()
    heap = [((0, 0), next(number), t) for t in cost]
    best: tuple[int, int] | None = None
    while heap:
        reached, _, t = heapq.heappop(heap)
        if best is not None and reached >= best:
            break
        if t in last:
            total = (reached[0] + last[t][0], reached[1] + last[t][1])
            best = total if best is None else min(best, total)
        for after, more in steps(t):
            new = (reached[0] + more, reached[1] + 1)
            if after not in cost or new < cost[after]:
                cost[after] = new
                heapq.heappush(heap, (new, next(number), after))
    assert best is not None
    return best


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [((2, 3, 2), (6, 6)), ((2, 3, 2), (12, 12)), ((2, 2, 2), (2, 4, 4)), ((6, 2), (6, 12))],
)
def test_no_normal_form_is_cheaper(sizes: tuple[int, ...], shape: tuple[int, ...]) -> None:
    mesh = rd.Mesh(dict(zip("xyz", sizes, strict=False)))
    found = list(whole_axis_layouts(mesh, shape))
    system = prime_system(*found)
    by_tile: dict[tuple[int, ...], list[PaperType]] = {}
    for t in sliced(PaperType.of(rd.ArrayType(mesh, "i8", shape), system)):
        by_tile.setdefault(t.tile_shape, []).append(t)
    rng = random.Random(0)
    for _ in range(40):
        src, dst = rng.choice(found), rng.choice(found)
        start, end = PaperType.of(src, system), PaperType.of(dst, system)
        plan = make_plan(src, dst, "paper", lower(start, synthesise(start, end), "f32"))
        ours = plan.received_bytes // 4, plan.num_collectives
        assert ours == least_cost(start, end, by_tile), f"{src} -> {dst}"


def test_one_permute_at_the_right_place() -> None:
    src, dst = (rd.ArrayType.parse(text, MESH) for text in (SRC, DST))
    plan = rd.plan(src, dst, strategy="paper")
    names = [step.collective for step in plan.steps]
    assert names == ["all_to_all", "collective_permute", "all_to_all"]
    verify_plan(plan, aligned=False)


def test_where_one_permute_is_not_enough() -> None:
    mesh = rd.Mesh(x=2, y=3, z=2)
    ends = (rd.ArrayType.parse(text, mesh) for text in ("f32[6{y,x}, 6{z}]", "f32[6{x}, 6{y,z}]"))
    plan = rd.plan(*ends, strategy="paper")
    names = [step.collective for step in plan.steps]
    assert names == ["collective_permute", "all_to_all", "collective_permute"]
    verify_plan(plan, aligned=False)


def test_more_devices_than_can_be_listed() -> None:
    mesh = rd.Mesh(x=1 << 8, y=1 << 8, z=1 << 4)
    src = rd.ArrayType(mesh, "f32", (1 << 30, 1 << 30), [("x", "y"), ("z",)])
    dst = rd.ArrayType(mesh, "f32", (1 << 30, 1 << 30), [("y",), ("z", "x")])
    plan = rd.plan(src, dst, strategy="paper")
    rd.check(plan)
    assert plan.peak_tile_bytes <= max(src.tile_bytes, dst.tile_bytes)


# --- what is shown


def test_the_local_sizes_along_the_paths() -> None:
    sizes = {
        route.name: " ".join(map(str, route.local_sizes))
        for route in derive(*(rd.ArrayType.parse(text, MESH) for text in (SRC, DST)))
    }
    assert sizes == {
        "gather all, slice all": "6 12 24 72 144 72 24 12 6",
        "normal form": "6 6 6 6 6 6 6 6 6",
        "synthesised": "6 6 6 6",
    }


def test_the_command_shows_the_derivation() -> None:
    arguments = ["plan", "--mesh", str(MESH), "--strategy", "paper", SRC, DST]
    result = click.testing.CliRunner().invoke(commands.program, arguments)
    assert result.exit_code == 0
    assert "gather all, slice all: 6 12 24 72 144 72 24 12 6" in result.stdout
    found = result.stdout[result.stdout.index("synthesised: 6 6 6 6") :]
    assert [line.rstrip() for line in found.splitlines()] == [
        "synthesised: 6 6 6 6",
        "  source                  6  [3{x,y}12, 2{z,w}12]",
        "  all_to_all 0 -> 1 of x  6  [6{y}12, 1{x,z,w}12]",
        "  all_permute             6  [6{w}12, 1{z,x,y}12]",
        "  all_to_all 1 -> 0 of z  6  [2{z,w}12, 3{x,y}12]",
    ]


def test_the_derivation_in_the_documentation() -> None:
    arguments = ["plan", "--mesh", str(MESH), "--strategy", "paper", SRC, DST]
    printed = click.testing.CliRunner().invoke(commands.program, arguments).stdout
    text = (Path(__file__).parents[2] / "docs" / "paper.md").read_text(encoding="utf-8")
    assert f"'{SRC}' '{DST}'" in text
    shown = text[text.index("```text\n") + len("```text\n") :]
    assert printed.endswith(shown[: shown.index("```")])


def test_only_plans_of_its_own_show_a_derivation() -> None:
    src, dst = (rd.ArrayType.parse(text, MESH) for text in (SRC, DST))
    plan = rd.plan(src, dst, strategy="paper")
    assert "derivation" in str(rd.Plan.from_json(plan.to_json()))
    assert "derivation" not in str(plan.transpose())
    assert "derivation" not in str(rd.plan(src, dst))


def test_the_plan_is_the_same_from_json() -> None:
    for at in (2, 5):
        rng = random.Random(at)
        for _ in range(20):
            src, dst = rng.sample(layouts(at), 2)
            plan = rd.plan(src, dst, strategy="paper")
            assert rd.Plan.from_json(plan.to_json()) == plan
            assert rd.plan(src, dst, strategy="paper").to_json() == plan.to_json()
