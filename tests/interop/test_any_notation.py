"""A reader of all notations finds out which one a text is in."""

from __future__ import annotations

import random

import pytest

import redistrib as rd
from redistrib.errors import LayoutError, TypeSyntaxError
from redistrib.interop.notations import NAMES, read_any, read_as, write_as
from tests.generators import random_pair
from tests.repetitions import repetitions

MESH = rd.Mesh(x=2, y=4)


def test_what_any_notation_writes_is_read_as_the_same_type() -> None:
    choose = random.Random(0).choice
    seen: dict[str, int] = dict.fromkeys(NAMES, 0)
    for _ in range(repetitions(300, 5000)):
        t = random_pair(choose)[0]
        for name in NAMES:
            try:
                text = write_as(name, t)
            except LayoutError:  # no word for it
                continue
            assert read_as(name, text, t.mesh, t.shape, t.dtype) == t, (name, text)
            if text != "[]":  # a scalar of ColossalAI, or a DTensor on a mesh without axes
                assert read_any(text, t.mesh, t.shape, t.dtype) == t, (name, text)
            seen[name] += 1
    assert all(count for name, count in seen.items() if name != "scalapack"), seen


def test_a_descriptor_of_scalapack_is_told_from_a_list_of_placements() -> None:
    mesh = rd.Mesh(p=2, q=2)
    t = read_any("[1, 0, 16, 8, 2, 4, 0, 0, 8]", mesh, dtype="f64")
    assert str(t) == "f64[16{_4,p}, 8{q}]"
    assert read_any(write_as("scalapack", t), mesh, dtype="f64") == t


def test_what_the_text_does_not_state_must_be_given() -> None:
    with pytest.raises(
        LayoutError, match="does not state the shape and dtype; give shape and dtype"
    ):
        read_any("P('x', None)", MESH)
    with pytest.raises(LayoutError, match="does not state the dtype; give dtype beside"):
        read_any("{replicated}", MESH, (4, 4))


def test_what_is_given_agrees_with_the_text() -> None:
    assert read_any("f32[8{x}]", MESH, (8,), "float32") == rd.ArrayType.parse("f32[8{x}]", MESH)
    with pytest.raises(LayoutError, match="those of the text"):
        read_any("f32[8{x}]", MESH, (9,))
    with pytest.raises(LayoutError, match="those of the text"):
        read_any("f32[8{x}]", MESH, None, "f64")


@pytest.mark.parametrize(
    "text", ["", "?", "f32", "f32[8{x}", "P('x'", "{devices=[2]", "[S(0)", "sharding<"]
)
def test_malformed_texts_say_where(text: str) -> None:
    with pytest.raises(TypeSyntaxError, match="column"):
        read_any(text, MESH, (8,), "f32")
