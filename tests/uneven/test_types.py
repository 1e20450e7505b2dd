"""Uneven types: who holds what, one form for each meaning, and their text."""

from __future__ import annotations

import random

import pytest

import redistrib as rd
from tests.repetitions import MANY, repetitions
from tests.uneven.meaning import MESHES, Held, held, layouts

SIZES = range(14) if MANY else (0, 1, 3, 7, 10)
OTHERS = (rd.Mesh(x=6), rd.Mesh(x=12)) if MANY else ()


def _holds(t: rd.ArrayType) -> Held:
    return tuple(tuple(t.tile(p)[0].tolist()) for p in range(t.mesh.num_devices))


@pytest.mark.parametrize("mesh", [*MESHES, rd.Mesh(x=2, y=4), *OTHERS], ids=str)
def test_meaning_and_equality(mesh: rd.Mesh) -> None:
    """Devices hold what the rule says; types are equal just where all devices hold the same."""
    rng = random.Random(str(mesh))
    for n in SIZES:
        by_meaning: dict[Held, rd.ArrayType] = {}
        found = list(layouts(n, mesh))
        for factors, rule in rng.sample(found, min(len(found), repetitions(40, 4000))):
            try:
                t = rd.ArrayType(mesh, "i8", [n], [factors], uneven={0: rule})
            except rd.LayoutError:
                continue  # parts of an axis that do not go together
            meaning = held(n, factors, rule, mesh)
            assert _holds(t) == meaning, (n, factors, rule)
            same = by_meaning.setdefault(meaning, t)
            assert t == same, (n, factors, rule, str(same))
            assert hash(t) == hash(same)
            shapes = [t.tile_shape_at(p) for p in range(mesh.num_devices)]
            assert shapes == [(len(indices),) for indices in meaning]
            assert t.tile_shape == max(shapes)
            read = rd.ArrayType.parse(str(t), mesh)
            assert read == t
            assert str(read) == str(t)
            evaluated = eval(repr(t), {"ArrayType": rd.ArrayType, "Mesh": rd.Mesh})
            assert (evaluated, str(evaluated)) == (t, str(t))
        assert len(set(by_meaning.values())) == len(by_meaning)


def test_numbers_beyond_a_machine_word() -> None:
    """Digits that are 0 step by more than 64 bits, and a rule may be given any digits."""
    mesh = rd.Mesh(x=1024, y=1024)
    n = 2**59 + 1
    t = rd.ArrayType.parse(f"f32[{n}{{x,y,_{n}}}:ceil]", mesh)
    assert t.index_runs(0, 0).tolist() == [[0, n]]
    assert t.index_runs(0, mesh.num_devices - 1).tolist() == []
    assert rd.ArrayType(mesh, "f32", [n]).index_runs(0, 0).tolist() == [[0, n]]
    assert rd.plan(t, f"f32[{n}]").received_bytes == 4 * n
    with pytest.raises(rd.LayoutError, match="a rule for uneven blocks"):
        rd.ArrayType(mesh, "f32", (10,), [("x",)], uneven={0: f"sizes({'9' * 5000})"})
