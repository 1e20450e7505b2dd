"""Layout holes: the cheapest completion that the limit allows."""

import pytest

import redistrib as rd
from redistrib.synth.oracle.completion import completions

MESH = rd.Mesh(x=2, y=4, z=2)


def complete(src: str, pattern: str, **options: object) -> str:
    return str(rd.complete(rd.ArrayType.parse(src, MESH), pattern, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("src", "pattern", "expected"),
    [
        ("f32[64{x}, 64]", "?", "f32[64{x}, 64]"),
        ("f32[64{x}, 64] sum{y}", "?", "f32[64{x}, 64] sum{y}"),
        ("f32[64{x}, 64{y}]", "f32[64, 64{?}]", "f32[64, 64{y,x,z}]"),  # on tiles that z halves
        ("f32[64{_4,x}, 64]", "f32[64{?}, 64{y}]", "f32[64{_4,x}, 64{y}]"),  # local factors stay
        ("f32[64{x:(1)2}, 64]", "f32[64{x,?}, 64]", "f32[64{x}, 64]"),
        ("f32[]", "?", "f32[]"),
        ("f32[64{y:(1)2}, 64]", "f32[64{?}, 64{y:(2)2}]", "f32[64{y:(1)2,x,z}, 64{y:(2)2}]"),
        ("f32[64, 64] sum{x}", "f32[64{?}, 64] sum{x}", "f32[64, 64] sum{x}"),
        ("f32[64, 64] sum{x}", "f32[64, 64{y}] sum{?}", "f32[64, 64{y}] sum{x}"),
        ("f32[64, 64] max{x,y}", "f32[64, 64] max{x,?}", "f32[64, 64] max{x,y}"),
        ("f32[64, 64] max{x}", "f32[64, 64] max{?}", "f32[64, 64] max{x}"),
        ("f32[] sum{x}", "f32[] sum{?}", "f32[] sum{x}"),
        ("f32[]", "f32[] sum{?}", "f32[]"),
    ],
)
def test_the_cheapest_completion(src: str, pattern: str, expected: str) -> None:
    assert complete(src, pattern) == expected


@pytest.mark.parametrize("pattern", ["f32[16{?}, 16{?}]", "f32[16{?}, 16{z}]", "f32[16{x,?}, 16]"])
@pytest.mark.parametrize("src", ["f32[16{x}, 16{y}]", "f32[16, 16{z,x}]", "f32[16{y,z}, 16]"])
@pytest.mark.parametrize("limit", [None, 512, 256])
def test_no_completion_is_cheaper(src: str, pattern: str, limit: int | None) -> None:
    source = rd.ArrayType.parse(src, MESH)
    found = rd.complete(source, pattern, memory_limit=limit)
    assert limit is None or found.tile_bytes <= limit
    least = rd.cost(source, found, memory_limit=limit).seconds
    for other in completions(source, pattern):
        try:
            assert rd.cost(source, other, memory_limit=limit).seconds >= least
        except rd.InfeasibleError:
            assert limit is not None


def test_every_layout_of_whole_axes_is_tried() -> None:
    source = rd.ArrayType.parse("f32[64, 64, 64]", MESH)
    assert len(list(completions(source, "?"))) == 106
    assert len(set(completions(source, "f32[64{?}, 64, 64{x}]"))) == 5


@pytest.mark.parametrize(
    ("src", "pattern", "expected"),
    [
        # A hole in the partial set opens that and no dimension, under the reduction that it names.
        ("f32[64]", "f32[64] sum{?}", ["f32[64]", "f32[64] sum{x}"]),
        ("f32[64] sum{x}", "f32[64] max{?}", ["f32[64]", "f32[64] max{x}"]),
        ("f32[64{x}]", "f32[64{?}] min{?}", ["f32[64]", "f32[64] min{x}", "f32[64{x}]"]),
        ("f32[64]", "f32[64{?}] sum{x}", ["f32[64] sum{x}"]),
        ("f32[]", "f32[] prod{?}", ["f32[]", "f32[] prod{x}"]),
        # What stands before a hole stays, a local factor too.
        ("f32[64]", "f32[64{_4,?}]", ["f32[64]", "f32[64{_4,x}]"]),
    ],
)
def test_what_a_pattern_opens(src: str, pattern: str, expected: list[str]) -> None:
    source = rd.ArrayType.parse(src, rd.Mesh(x=2))
    assert sorted(map(str, completions(source, pattern))) == expected


def test_a_hole_is_for_patterns() -> None:
    with pytest.raises(rd.TypeSyntaxError, match="column 7: expected a factor; a hole is for"):
        rd.ArrayType.parse("f32[8{?}]", MESH)


def test_the_memory_limit_forbids_replication() -> None:
    free, tight = (
        complete("f32[64{x,y}, 64]", "f32[64, 64{?}]", memory_limit=m) for m in (None, 2048)
    )
    assert rd.ArrayType.parse(tight, MESH).tile_bytes <= 2048
    assert free == tight == "f32[64, 64{x,y,z}]"


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        ("f32[64{?,x}, 64]", rd.TypeSyntaxError, "column 9: expected '}', as a hole is the last"),
        ("f32[?, 64]", rd.TypeSyntaxError, "column 5: expected the size of a dimension, got '?'"),
        ("f32[64{?}, 64] sum{?", rd.TypeSyntaxError, "column 21: expected '}'"),
        ("f32[64{?}, 64] mean{?}", rd.TypeSyntaxError, "one of sum, prod, max, min"),
        (None, rd.TypeSyntaxError, "a notation is a text; got None"),
        ("f32[64{q,?}, 64]", rd.LayoutError, "unknown axis 'q'"),
        ("f32[32{?}, 64]", rd.LayoutError, "one shape"),
        ("f32[64{?}", rd.TypeSyntaxError, "expected ',' or ']'"),
        ("f32[64{x,?}, 64{x}]", rd.LayoutError, "used once"),
        ("f32[64{x}:ceil, 64{?}]", rd.LayoutError, "holes are filled in even types"),
    ],
)
def test_bad_patterns(pattern: str, error: type[rd.RedistribError], message: str) -> None:
    with pytest.raises(error) as raised:
        complete("f32[64{x}, 64]", pattern)
    assert message in str(raised.value)


def test_a_limit_that_nothing_fits_says_what_would() -> None:
    with pytest.raises(rd.InfeasibleError) as error:
        complete("f32[64{x,y,z}, 64]", "f32[64{?}, 64]", memory_limit=1000)
    assert error.value.least_bytes == 1024
    assert complete("f32[64{x,y,z}, 64]", "f32[64{?}, 64]", memory_limit=1024)


@pytest.mark.parametrize("pattern", ["?", "f32[7{?}, 8]"])
def test_an_uneven_source_is_refused(pattern: str) -> None:
    src = rd.ArrayType.parse("f32[7{x}:ceil, 8]", MESH)
    with pytest.raises(rd.LayoutError, match="pad it to a size that its axes divide"):
        rd.complete(src, pattern)
