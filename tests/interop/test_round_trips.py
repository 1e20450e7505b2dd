"""text -> type -> text, in every notation, over random layouts."""

from __future__ import annotations

import random

import pytest

import redistrib as rd
from redistrib.interop.jax_text import format_abstract_mesh, parse_abstract_mesh
from redistrib.interop.shardy import format_sdy_mesh, parse_sdy_mesh
from tests.interop.notations import NOTATIONS, Notation, random_mesh_with_devices

LAYOUTS = 2000


def written_or_none(notation: Notation, t: rd.ArrayType) -> str | None:
    """The text of a type, or None where the notation says that it has no word for it."""
    try:
        return notation.write(t)
    except rd.LayoutError as error:
        if "has no word for" not in str(error):
            raise
        return None


@pytest.mark.parametrize("name", NOTATIONS)
def test_random_layouts_survive(name: str) -> None:
    notation = NOTATIONS[name]
    rng = random.Random(name)
    written = drawn = 0
    while written < LAYOUTS:
        t = notation.draw(rng.choice)
        drawn += 1
        assert drawn < 6 * LAYOUTS, f"{name} has words for too few random types"
        text = written_or_none(notation, t)
        if text is None:
            continue
        found = notation.read(text, t)
        assert found == t, text
        assert notation.write(found) == text
        written += 1


def test_random_meshes_survive() -> None:
    rng = random.Random(0)
    for _ in range(500):
        mesh = random_mesh_with_devices(rng.choice)
        assert parse_sdy_mesh(format_sdy_mesh(mesh)) == mesh
        if mesh.devices is None:
            assert parse_abstract_mesh(format_abstract_mesh(mesh)) == mesh
        else:
            with pytest.raises(rd.LayoutError, match="no devices"):
                format_abstract_mesh(mesh)


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("PartitionSpec", "f32[8{_2,x}]", "a local factor before an axis"),
        ("PartitionSpec", "f32[8{y:(1)2}]", "a part of an axis, y:(1)2"),
        ("aval", "f32[8] max{x}", "a partial max"),
        ("Shardy", "f32[8{_2,x}]", "a local factor before an axis"),
        ("Shardy", "f32[8] prod{x}", "a partial prod"),
        ("HLO v1", "f32[8{_2,x}]", "a local factor before an axis"),
        ("HLO v2", "f32[8] prod{x}", "a partial prod"),
        ("HLO v3", "f32[8{_2,x}]", "a local factor before an axis"),
        ("DTensor", "f32[8{y:(1)2}]", "what y owns"),
        ("DTensor", "f32[8] sum{y:(1)2}", "a part of an axis"),
        ("Alpa", "f32[8] sum{x}", "a partial array"),
        ("Alpa", "f32[8{_2,x}]", "a local factor before an axis"),
        ("ColossalAI", "f32[8] sum{x}", "a partial array"),
        ("ColossalAI", "f32[8{y:(2)2}]", "a part of an axis"),
        ("ScaLAPACK", "f32[8{x}]", "other than a matrix"),
        ("ScaLAPACK", "f32[8{y}, 8{x}]", "a dimension 8 that is not cyclic over x"),
    ],
)
def test_a_layout_without_a_word_is_an_error_that_says_so(name: str, text: str, what: str) -> None:
    t = rd.ArrayType.parse(text, rd.Mesh(x=2, y=4))
    with pytest.raises(rd.LayoutError, match="has no word for") as caught:
        NOTATIONS[name].write(t)
    assert what in str(caught.value)
    assert str(t) in str(caught.value)
