"""Weight maps: their text, their meaning, their inverse; loading functions as maps."""

from __future__ import annotations

import doctest
import random
from pathlib import Path

import numpy as np
import pytest

from redistrib.errors import WeightMapError
from redistrib.models.expression import (
    cast,
    concat,
    pad,
    rearrange,
    source,
    stack,
)
from redistrib.models.inverse import inverse
from redistrib.models.names import Affine, Name
from redistrib.models.tracing import trace
from redistrib.models.weight_map import WeightMap
from tests.models.test_atoms import random_case

PUBLIC = """
# a fused projection, a stack of experts, grouped queries, a scanned array, a padded vocabulary
layers.{i}.qkv = concat(0, model.layers.{i}.q, model.layers.{i}.k, model.layers.{i}.v)
layers.{i}.w13 = stack(0, {e} in 0:4: concat(0, experts.{i}.{e}.gate, experts.{i}.{e}.up))
layers.{i}.k   = rearrange(rearrange(dec.{i}.qkv, "(g j d) h -> g j d h", j=10, d=2)[:, 8:9],
                           "g j d h -> (g j d) h")
layers.{i}.wq  = cast(scanned.wq[:, {i}], bf16) for {i} in 0:3
lm_head        = pad("embed tokens", 0, 8)
"""


def test_the_text_of_a_map_parses_back() -> None:
    w = WeightMap.parse(PUBLIC)
    assert WeightMap.parse(str(w)) == w
    assert eval(repr(w), {"WeightMap": WeightMap}) == w
    for seed in range(300):
        drawn = random_case(seed, 4)[0]
        assert WeightMap.parse(str(drawn)) == drawn, seed


def test_a_built_map_equals_its_text() -> None:
    e = source("experts.{i}.{e}.up")
    built = WeightMap(
        {
            "a.{i}": stack(0, e, over=("e", 0, 4)),
            "b": pad(cast(rearrange(source("w"), "(h d) m -> h m d", d=4)[1:, 2], "bf16"), 0, 9),
            "c.{i}": concat(1, source("x y.{i}"), source("z")[:, Affine("i"), ::2]),
        }
    )
    assert built == WeightMap.parse(
        """
        a.{i} = stack(0, {e} in 0:4: experts.{i}.{e}.up)
        b = pad(cast(rearrange(w, "(h d) m -> h m d", d=4)[1:, 2], bf16), 0, 9)
        c.{i} = concat(1, "x y.{i}", z[:, {i}, ::2])
        """
    )


def arrays_of(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 100, shape).astype("f4") for name, shape in shapes.items()}


def test_a_rule_makes_the_targets_for_which_all_its_sources_exist() -> None:
    w = WeightMap.parse("t.{i} = concat(0, a.{i}, b.{i})\nu.{i} = a.{i+1}\nv.{i} = a.{i*2}")
    arrays = arrays_of(**{"a.0": (2,), "a.1": (2,), "a.2": (2,), "b.1": (1,), "a.x": (1,)})
    assert list(w.targets(arrays)) == ["t.1", "u.0", "u.1", "v.0", "v.1"]
    made = w(arrays)
    assert np.array_equal(made["t.1"], np.concatenate([arrays["a.1"], arrays["b.1"]]))
    assert np.array_equal(made["v.1"], arrays["a.2"])
    assert w.unused(arrays) == ["a.x"]


def test_the_first_of_several_rules_for_a_target_holds() -> None:
    w = WeightMap.parse("ffn.{i} = dense.{i}\nffn.{i} = stack(0, {e} in 0:2: moe.{i}.{e})")
    arrays = arrays_of(
        **{"dense.0": (3,), "moe.0.0": (3,), "moe.0.1": (3,), "moe.1.0": (3,), "moe.1.1": (3,)}
    )
    made = w(arrays)
    assert np.array_equal(made["ffn.0"], arrays["dense.0"])
    assert np.array_equal(made["ffn.1"], np.stack([arrays["moe.1.0"], arrays["moe.1.1"]]))


def test_a_range_demands_all_its_targets() -> None:
    w = WeightMap.parse("t.{i} = a.{i} for {i} in 0:3")
    with pytest.raises(WeightMapError, match=r"line 1, column 1: .*t\.2 needs a\.2") as caught:
        w(arrays_of(**{"a.0": (1,), "a.1": (1,)}))
    assert (caught.value.line, caught.value.source) == (1, "a.2")


def test_placeholders_are_numbers_without_leading_zeros() -> None:
    name = Name.parse("layers.{i}.{j}.w")
    assert name.match("layers.3.10.w") == {"i": 3, "j": 10}
    assert name.match("layers.03.1.w") is None
    assert Name.parse("a.{i}.{i+1}").match("a.3.4") == {"i": 3}
    assert Name.parse("a.{i}.{i+1}").match("a.3.5") is None
    assert Name.parse("a.{i*3}").match("a.6") == {"i": 2}
    assert Name.parse("a.{i*3}").match("a.7") is None
    assert Name.parse("a.{i-3}").match("a.0") == {"i": 3}


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a", 1, 2, "expected '='"),
        ("a = ", 1, 5, "expected an expression"),
        ("a = concat(0, b", 1, 16, r"expected ',' or '\)'"),
        ("a = concat(b, c)", 1, 12, "a dimension, an integer"),
        ("x = y\na = b[1:2:0]", 2, 11, "positive"),
        ("a = b[:, ]", 1, 10, "an index, an integer"),
        ("a = b[1.5]", 1, 8, "',' or ']'"),
        ('a = rearrange(b, "x -> y")', 1, 18, "no dimension is lost"),
        ('a = rearrange(b, "(x y -> x y")', 1, 18, "unexpected '->'"),
        ('a = rearrange(b, "x y -> y x", x=1, x=2)', 1, 37, "one size"),
        ("a = cast(b, f33)", 1, 13, "unknown dtype 'f33'"),
        ("a = b c", 1, 7, "the end of the rule"),
        ("a = b{", 1, 6, "the end of the rule"),
        ("a{i+1} = b{i}", 1, 1, "plain"),
        ("a.{i} = b[{i}]", 1, 1, r"needs a range: \.\.\. for \{i\} in"),
        ("a = b.{i}", 1, 1, r"lacks \{i\}"),
        ("a = b for {i} in 0:3", 1, 1, r"lacks \{i\}"),
        ("a.{i} = b for {i} in 3:0", 1, 25, "from A up to B"),
        ("a = stack(0, {e} in 0:3 b.{e})", 1, 25, "expected ':'"),
        ("a = " + "b" + "[0]" * 2 + "[", 1, 13, "an index"),
        ("a = " + "concat(0," * 200 + "b" + ")" * 200, 1, None, "at most 100 brackets"),
        ("a = b[99999999999999999999]", 1, None, "integer"),
    ],
)
def test_errors_of_a_text_name_line_and_column(
    text: str, line: int, column: int | None, message: str
) -> None:
    with pytest.raises(WeightMapError, match=message) as caught:
        WeightMap.parse(text)
    assert caught.value.line == line
    assert column is None or caught.value.column == column
    assert str(caught.value).startswith(f"line {line}, column {caught.value.column}: ")


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("t = b[5]", 5, "below the size of its dimension; dimension 0 of .4, 6. has 4, got 5"),
        ("t = concat(0, b, c[0:3, 2:7])", 18, r"within its dimension; dimension 1 .* 2:7"),
        ("t = b[1, 2, 3]", 5, "at most one entry per dimension"),
        ("t = concat(0, b, d)", 5, "agree in all but its dimension; part 0 .*4, 6.*part 1 .*5, 5"),
        ("t = stack(0, b, d)", 5, "one shape"),
        ("t = concat(0, b, e)", 5, "one dtype; got f32, f64"),
        ("t = concat(2, b)", 5, "below the rank, 2; got 2"),
        ('t = rearrange(b, "x -> x")', 5, "rank 1; got the shape .4, 6."),
        ('t = rearrange(b, "(x y) z -> x y z", x=3)', 5, "make up dimension 0, of size 4; got x=3"),
        ('t = rearrange(b, "(x y) z -> x y z")', 5, "leaves x and y open"),
        ('t = rearrange(b, "x y -> x y r")', 5, "needs a size, as in r=2"),
        ('t = rearrange(b, "x y -> y x", z=2)', 5, "sizes are of names in the pattern"),
        ("t = pad(b, 0, 3)", 5, "makes a dimension larger"),
        ("t = cast(g, f32)", 5, "imaginary"),
        ("t = stack(0, {e} in 2:2: b)", 5, "at least one part"),
    ],
)
def test_what_does_not_fit_the_sources_names_line_and_column(
    text: str, column: int, message: str
) -> None:
    arrays = arrays_of(b=(4, 6), c=(4, 6), d=(5, 5))
    arrays |= {"e": np.zeros((4, 6)), "g": np.zeros(3, "c8")}
    w = WeightMap.parse("\n" + text)
    with pytest.raises(WeightMapError, match=message) as caught:
        w(arrays)
    assert (caught.value.line, caught.value.column) == (2, column)
    with pytest.raises(WeightMapError, match=message):
        w.shapes({name: (a.shape, a.dtype) for name, a in arrays.items()})


@pytest.mark.parametrize(
    "build",
    [
        lambda: source(3),
        lambda: concat("0", source("a")),
        lambda: concat(0),
        lambda: concat(0, "a"),
        lambda: source("a")[1.5],
        lambda: source("a")[..., 0],
        lambda: source("a")[::-1],
        lambda: source("a")[True],
        lambda: source("{i"),
        lambda: source(""),
        lambda: rearrange(source("a"), "a b"),
        lambda: WeightMap([1]),
        lambda: WeightMap.parse(3),
    ],
)
def test_what_is_no_expression_is_refused(build) -> None:
    with pytest.raises(WeightMapError):
        build()


# --- the inverse -----------------------------------------------------------------------------


def shapes_of(arrays):
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}


GROUPED = "\n".join(
    f'{name} = rearrange(rearrange(w, "(g j d) h -> g j d h", j=4, d=2)[:, {rows}], '
    '"g j d h -> (g j d) h")'
    for name, rows in (("q", "0:2"), ("k", "2:3"), ("v", "3:4"))
)


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("qkv = concat(0, q, k, v)", {"q": (8, 3), "k": (2, 3), "v": (2, 3)}),
        ("q = qkv[0:8]\nk = qkv[8:10]\nv = qkv[10:12]", {"qkv": (12, 3)}),
        ("l.{i} = scanned[:, {i}] for {i} in 0:3", {"scanned": (4, 3, 2)}),
        (
            "w = stack(1, {e} in 0:2: concat(0, g.{e}, u.{e}))",
            {f"{x}.{e}": (2, 3) for x in "gu" for e in (0, 1)},
        ),
        ('t = rearrange(w[:, 0:4], "a b -> b a")\nu = pad(w[:, 4:], 0, 9)', {"w": (7, 5)}),
        (GROUPED, {"w": (24, 3)}),
        ('t = rearrange(k, "(h d) m -> (h r d) m", d=2, r=3)', {"k": (8, 5)}),
        ("t = w[0:2]\nu = w\nv = w[2:]", {"w": (5, 2)}),
        ("a = w[0:2, 0:3]\nb = w[0:2, 3:]\nc = w[2:]", {"w": (5, 4)}),
        ("a.{i}.{j} = w[{i}, :, {j}] for {i} in 0:2, {j} in 0:3", {"w": (2, 4, 3)}),
        ("t = cast(w, f64)", {"w": (3,)}),
    ],
)
def test_the_inverse_gives_the_sources_back(text: str, shapes: dict[str, tuple[int, ...]]) -> None:
    arrays = arrays_of(**shapes)
    w = WeightMap.parse(text)
    back = inverse(w, shapes_of(arrays))
    made = back(w(arrays))
    assert {n: (a.shape, a.dtype) for n, a in made.items()} == shapes_of(arrays)
    assert all(np.array_equal(made[name], arrays[name]) for name in arrays)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t = w[0:3]", "do not have all of the source w along dimension 0: they have 0:3:1 of 4"),
        ("t = w[0:3]\nu = w[2:]", "do not have all"),
        ("t = w", "source v"),
        ("t = cast(w, f16)\nu = v", "may round"),
        ("t = concat(0, w, v)[1:]", "put together"),
    ],
)
def test_a_map_that_loses_something_has_no_inverse(text: str, message: str) -> None:
    with pytest.raises(WeightMapError, match=message):
        inverse(WeightMap.parse(text), {"w": ((4, 2), "f32"), "v": ((4, 2), "f32")})


def test_random_maps_are_inverted_or_refused() -> None:
    inverted = 0
    for seed in range(400):
        w, arrays, _, _ = random_case(seed, 3)
        if any(0 in a.shape for a in arrays.values()):
            continue
        try:
            back = inverse(w, shapes_of(arrays))
        except WeightMapError:
            continue
        inverted += 1
        made = back(w(arrays))
        assert all(np.array_equal(made[name], arrays[name]) for name in arrays), (seed, str(w))
    assert inverted > 50


# --- loading functions -----------------------------------------------------------------------


def follow(load, **shapes: tuple[int, ...]) -> WeightMap:
    arrays = arrays_of(**shapes)
    w = trace(load, shapes_of(arrays))
    meant, made = load(arrays.__getitem__), w(arrays)
    assert list(made) == list(meant)
    for name in meant:
        assert np.array_equal(made[name], meant[name])
        assert made[name].dtype == meant[name].dtype
    assert WeightMap.parse(str(w)) == w
    return w


@pytest.mark.parametrize(
    "load",
    [
        lambda get: {"t": get("w")},
        lambda get: {
            "t": get("w").T,
            "u": get("w").transpose(2, 0, 1),
            "v": get("w").swapaxes(0, -1),
        },
        lambda get: {"t": get("w").reshape(6, 4, -1), "u": get("w").reshape(4, 5, 6)},
        lambda get: {"t": get("w").reshape(1, 4, 1, 6, 5, 1), "u": get("w").reshape(-1)},
        lambda get: {"t": get("w")[1], "u": get("w")[1:, None, ::2], "v": get("w")[..., -1]},
        lambda get: {"t": get("w")[-3:, 2:100], "u": get("w")[:, 5:2]},
        lambda get: {"t": get("w").astype("f2"), "u": get("w").astype(np.float64)[0]},
        lambda get: {"t": np.concatenate([get("w"), get("w")[:2]], axis=0)},
        lambda get: {
            "t": np.stack([get("w"), get("w")], axis=-1),
            "u": np.vstack([get("w"), get("w")]),
        },
        lambda get: dict(zip("tuv", np.split(get("w"), 3, axis=1), strict=True)),
        lambda get: dict(zip("tuv", np.array_split(get("w"), 3, axis=0), strict=True)),
        lambda get: dict(zip("tuvx", get("w"), strict=True)),
        lambda get: {"t": np.repeat(get("w"), 3, axis=1), "u": np.tile(get("w"), (2, 1, 1, 3))},
        lambda get: {"t": np.pad(get("w"), ((0, 2), (0, 0), (0, 1)))},
        lambda get: {"t": np.expand_dims(get("w"), 1).squeeze(), "u": np.moveaxis(get("w"), 0, -1)},
        lambda get: {
            "t": np.ascontiguousarray(get("w").T)
            if isinstance(get("w"), np.ndarray)
            else get("w").T
        },
        lambda get: {"t": np.hstack([get("w"), get("w")]), "u": get("w").ravel().repeat(2)},
        lambda get: {"t": get("w")[1, 2, 3], "u": get("w")[1, 2, 3].reshape(1, 1)},
    ],
)
def test_a_loading_function_is_followed(load) -> None:
    follow(load, w=(4, 6, 5))


def test_a_loader_of_a_model_is_followed() -> None:
    def load(get):
        made = {}
        for i in range(2):
            q, k, v = (get(f"layers.{i}.{x}") for x in "qkv")
            groups = [
                np.concatenate([q[g * 4 : g * 4 + 4], k[g * 2 : g * 2 + 2], v[g * 2 : g * 2 + 2]])
                for g in range(2)
            ]
            made[f"decoder.{i}.qkv"] = np.concatenate(groups)
        made["out"] = get("embed").astype("f2")
        return made

    shapes = {f"layers.{i}.{x}": ((8 if x == "q" else 4), 3) for i in range(2) for x in "qkv"}
    follow(load, **shapes, embed=(7, 3))


def test_loaders_of_public_programs_are_followed() -> None:
    """Megatron's groups, Meta's rotary order, experts of gate and up, DeepSeek's latent values."""
    heads, groups, head, hidden = 8, 2, 4, 16

    def megatron(get):
        qkv = get("qkv.weight").reshape(groups, heads // groups + 2, head, hidden)
        bias = np.split(get("qkv.bias").reshape(groups, -1, head), [4, 5], axis=1)
        gate, up = np.split(get("fc1"), 2)
        return {
            "q": qkv[:, : heads // groups].reshape(-1, hidden),
            "k": qkv[:, -2].reshape(-1, hidden),
            "v": qkv[:, -1:].reshape(groups * head, hidden),
            **{f"{x}.bias": part.ravel() for x, part in zip("qkv", bias, strict=True)},
            "gate_up": np.stack([gate, up], axis=1).reshape(-1, hidden),
        }

    rows = (heads + 2 * groups) * head
    follow(megatron, **{"qkv.weight": (rows, hidden), "qkv.bias": (rows,), "fc1": (12, hidden)})

    def rotary(get):
        halves = get("wq").reshape(heads, head // 2, 2, hidden).transpose(0, 2, 1, 3)
        return {"q_proj": halves.reshape(heads * head, hidden)}

    follow(rotary, wq=(heads * head, hidden))

    def experts(get):
        def w13(e):
            return np.concatenate([get(f"{e}.gate"), get(f"{e}.up")])

        return {
            "w13": np.stack([w13(e) for e in range(3)]),
            "w2": np.stack([get(f"{e}.down").T for e in range(3)]),
        }

    shapes = {"gate": (6, hidden), "up": (6, hidden), "down": (hidden, 6)}
    follow(experts, **{f"{e}.{x}": shape for e in range(3) for x, shape in shapes.items()})

    def latent(get):
        kv = get("kv_b").reshape(heads, -1, hidden)
        return {"w_kc": kv[:, :4].transpose(0, 2, 1), "w_vc": kv[:, 4:]}

    follow(latent, kv_b=(heads * 7, hidden))


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda get: {"t": get("w") * 2}, "arithmetic"),
        (lambda get: {"t": np.sin(get("w"))}, "np.sin"),
        (lambda get: {"t": np.flip(get("w"))}, "np.flip|negative step"),
        (lambda get: {"t": get("w")[::-1]}, "negative step"),
        (lambda get: {"t": get("w")[[0, 1]]}, "no integer and no slice"),
        (lambda get: {"t": np.asarray(get("w"))}, "asarray"),
        (lambda get: {"t": np.concatenate([get("w"), np.zeros((1, 5))])}, "ndarray of its own"),
        (lambda get: {"t": get("w").sum()}, "ndarray.sum"),
        (lambda get: {"t": np.zeros(3)}, "made of sources; 't' is ndarray"),
        (lambda get: {"t": get("v")}, "asks for 'v', which is no source; did it mean"),
        (lambda get: {"t": get("w") if get("w") else None}, "test of elements"),
        (lambda get: {"t": get("w")} if float(get("w")[0, 0]) > 0 else {}, "element as a number"),
        (lambda get: {"t": get("w")[: get("w")[0, 0]]}, "element as a number"),
        (lambda get: {"t": get("w") & 1}, "arithmetic"),
        (lambda get: {"t": np.ascontiguousarray(get("w").T)}, "np.ascontiguousarray"),
        (lambda get: {"t": np.empty_like(get("w"))}, "np.empty_like"),
        (lambda get: {"t": get("w").view("i4")}, "view"),
        (lambda get: np.zeros((4, 5)).__setitem__(0, get("w")[0]), "asarray"),
    ],
)
def test_what_a_trace_cannot_follow_is_refused_by_name(load, message: str) -> None:
    with pytest.raises(WeightMapError, match=message):
        trace(load, {"w": ((4, 5), "f32"), "vv": ((1,), "f32")})


def test_random_sequences_of_views_are_followed() -> None:
    for seed in range(150):
        rng = random.Random(seed)
        steps = [rng.choice("RTISNP") for _ in range(rng.randint(1, 6))]

        def load(get, seed=seed, steps=steps):
            rng = random.Random(seed)
            x = get("w")
            for step in steps:
                if step == "R" and x.size:
                    factors = [p for p in (2, 3, 5) if x.size % p == 0]
                    p = rng.choice(factors or [1])
                    x = x.reshape((x.size // p, p) if rng.random() < 0.5 else (p, 1, x.size // p))
                elif step == "T":
                    x = x.transpose(rng.sample(range(x.ndim), x.ndim))
                elif step == "I" and x.ndim > 1 and x.shape[0] > 1:
                    x = x[rng.randrange(1, x.shape[0]) :]
                elif step == "S":
                    x = np.stack([x, x], axis=rng.randint(0, x.ndim))
                elif step == "N":
                    x = x[None]
                elif step == "P" and x.ndim:
                    x = np.concatenate([x, x], axis=rng.randrange(x.ndim))
            return {"t": x}

        follow(load, w=(4, 6, 5))


def test_the_examples_of_the_page_run() -> None:
    page = Path(__file__).parents[2] / "docs/models.md"
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert tried > 5
    assert failed == 0


def test_a_trace_reads_dtypes_as_numpy_does() -> None:
    w = follow(lambda get: {"t": get("w").astype("i8")}, w=(3,))
    assert str(w) == "t = cast(w, i64)"
