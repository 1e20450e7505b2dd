"""XLA's plan carried over to larger meshes: as compiled there, or refused."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

import redistrib as rd
from bench.scale import (
    FAMILIES,
    LIMITS,
    PROFILES,
    Family,
    compile_xla,
    fitted,
    predicted,
    priced,
    simulate,
)
from redistrib.synth.plan.data import Plan
from redistrib.synth.plan.profile import find_profile

BLOW_UP = next(family for family in FAMILIES if family.name == "rows over x to columns over y")


def test_the_prediction_is_what_xla_compiles() -> None:
    family = replace(BLOW_UP, sizes=(2, 4), check=8, targets=(64,))
    rows = simulate([family], checked=True)
    assert [row["xla"] for row in rows] == ["as compiled at n = 8"] * len(PROFILES)
    for row in rows:
        assert row["devices"] == 4096
        assert row["xla_collectives"] == ["all-to-all over x", "collective-permute over x,y"]
        # A permute of the tile, and an all-to-all of an array on x alone: 1/64 of 16 GiB.
        assert row["xla_received_bytes"] == 2**34 // 64 * 63 // 64 + 2**34 // 64
        assert row["bound_bytes"] <= row["ours_received_bytes"] < row["xla_received_bytes"]
        assert 0 < row["ours_seconds"] < row["xla_seconds"]


def test_what_does_not_scale_has_no_figure() -> None:
    def one(kind: str, axes: list[str], group: int, received: int) -> dict[str, object]:
        return {"kind": kind, "axes": axes, "group": group, "received_bytes": received}

    first, second = one("all-gather", ["x"], 2, 64), one("all-gather", ["x"], 4, 96)
    fit = fitted([first], [second], 2, 4)
    assert fit[0]["group"] == (1, 1)
    assert fit[0]["delivered"] == (Fraction(128), 0)
    assert predicted(fit, 8) == [one("all-gather", ["x"], 8, 112)]
    with pytest.raises(LookupError, match="other collectives"):
        fitted([first], [one("all-gather", ["y"], 4, 96)], 2, 4)
    with pytest.raises(LookupError, match="goes from 2 at n = 2 to 3 at n = 4"):
        fitted([first], [one("all-gather", ["x"], 3, 96)], 2, 4)
    with pytest.raises(LookupError, match="XLA at n = 2: timeout"):
        compile_xla(BLOW_UP, 2, replace(LIMITS, answer_seconds=0.01))


def test_xla_too_gathers_over_nodes_first() -> None:
    """One rule for both: a gather of XLA's costs what ours of the same array does, cut by link."""
    for axes in ("n=4,g=8", "x=32"):
        mesh = rd.Mesh(axes)
        links = find_profile("dgx-h100").on(mesh)
        names = [name for name, _ in mesh.axes]
        gather = {"kind": "all-gather", "axes": names, "group": 32, "received_bytes": 31 * 10**6}
        src = rd.ArrayType(mesh, "i8", (32 * 10**6,), [names])
        ours = rd.plan(src, src.replace(dims=[()]), strategy="collectives", profile="dgx-h100")
        assert ours.num_collectives == 2
        assert priced(gather, mesh, links) == pytest.approx(ours.seconds)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_families_plan_at_full_scale(family: Family) -> None:
    assert {family.at(n)[0].mesh.num_devices for n in family.targets} == {4096, 65536}
    for n in family.targets:
        plan = rd.plan(*family.at(n))
        assert isinstance(plan, Plan)
        rd.check(plan)
