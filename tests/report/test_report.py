"""Views of plans say what the plan says."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest

import redistrib as rd
from redistrib import display
from redistrib.report.figures import format_bytes
from redistrib.report.plan_text import COLUMNS, header, plan_text, print_rich, rows
from redistrib.report.trace import to_trace
from redistrib.synth.planner.problem import Strategy

MESH = rd.Mesh(x=2, y=4)
SRC, DST = "f32[4096{x}, 4096{y}]", "f32[4096{y}, 4096{x}]"
TYPES = (
    "f32[]",
    "f32[0{x}, 3]",
    "f32[8]",
    "f32[8{_2,x}]",
    "f32[8{x}, 4, 4{y:(2)2}, 2{y:(1)2}]",
    "f32[8{x}] sum{y}",
)


def parse(text: str, mesh: rd.Mesh = MESH) -> rd.ArrayType:
    return rd.ArrayType.parse(text, mesh)


def transposition() -> rd.Plan:
    return rd.plan(parse(SRC), parse(DST))


def test_text_has_both_types_the_bounds_and_a_row_per_step() -> None:
    plan = transposition()
    lines = str(plan).splitlines()
    assert lines[0] == f"{SRC} -> {DST}"
    text = "\n".join(lines)
    assert f"lower bound {format_bytes(plan.lower_bound_bytes)}" in text
    assert format_bytes(plan.received_bytes) in text
    assert "source 8 MiB, target 8 MiB" in text
    assert "would receive 56 MiB and peak at 64 MiB" in text
    head, source, *steps = lines[lines.index("") + 1 :]
    assert head.split() == list(COLUMNS)
    assert source.split() == ["0", "source", "2048x1024", "8", "MiB"]
    assert len(steps) == len(plan.steps)
    for number, (line, step) in enumerate(zip(steps, plan.steps, strict=True), start=1):
        assert line.split()[:2] == [str(number), step.collective]


@pytest.mark.parametrize("strategy", ["collectives", "direct", "paper"])
def test_plain_text_fits_80_columns_and_loses_no_cell(strategy: Strategy) -> None:
    wide = rd.Mesh(data=2, expert=2, sequence=2, tensor=2)
    src = "f32[4096{data}, 4096{expert}, 4096{sequence}, 4096{tensor}]"
    dst = "f32[4096{tensor}, 4096{data}, 4096{expert}, 4096{sequence}]"
    for plan in (
        rd.plan(parse(SRC), parse(DST), strategy=strategy),
        rd.plan(parse(src, wide), parse(dst, wide), strategy=strategy),
    ):
        text = str(plan).split("\n\n")[1]
        assert max(map(len, text.splitlines())) <= 80
        assert all(cell in text for row in rows(plan) for cell in row)
        used = [name for name, *cells in zip(COLUMNS, *rows(plan), strict=True) if any(cells)]
        assert all(name in text for name in used[1:])


def test_times_are_those_of_the_profile_of_the_plan() -> None:
    slow = rd.Profile("slow", rd.Link(latency=2.0, bandwidth=1e30))
    ends = (rd.ArrayType.parse(text, transposition().src.mesh) for text in (SRC, DST))
    plan = rd.plan(*ends, strategy="collectives", profile=slow)
    assert [row[-1] for row in rows(plan)] == ["", *["2 s"] * len(plan.steps)]
    assert ("time", f"{2 * len(plan.steps)} s estimated, profile slow") in header(plan)


def test_details() -> None:
    plan = transposition()
    concise = plan_text(plan, "concise")
    assert "\n" not in concise
    assert concise.startswith(f"{SRC} -> {DST}: ")
    full = plan_text(plan, "full")
    assert full.startswith(str(plan))
    for t in plan.types:
        assert str(t) in full


@pytest.mark.parametrize("text", TYPES)
def test_every_view_of_a_plan_without_steps(text: str) -> None:
    plan = rd.plan(parse(text), parse(text))
    assert "nothing to do" in str(plan)
    assert "nothing to do" in plan_text(plan, "concise")
    assert "Nothing to do" in display.to_html(plan)


def test_the_terminal_table_agrees_with_the_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    plan = transposition()
    print_rich(plan)
    shown = capsys.readouterr().out
    for _, value in header(plan):
        assert value in shown
    for row in rows(plan):
        assert all(cell in shown for cell in row)


def test_a_trace_has_a_slice_per_device_and_step_one_after_the_other() -> None:
    mesh = rd.Mesh({"x": 2, "y": 4}, devices=range(7, -1, -1))
    plan = rd.plan(parse(SRC, mesh), parse(DST, mesh), strategy="collectives")
    events = json.loads(to_trace(plan))["traceEvents"]
    for device in mesh.ids:
        slices = [e for e in events if e["ph"] == "X" and e["tid"] == device]
        assert [e["name"] for e in slices] == [step.collective for step in plan.steps]
        assert math.isclose(sum(e["dur"] for e in slices), plan.seconds * 1e6)
        assert all(a["ts"] + a["dur"] <= b["ts"] for a, b in pairwise(slices))
    live = [e["args"]["bytes"] for e in events if e["ph"] == "C"]
    assert live == [plan.src.tile_bytes, *plan.live_bytes_per_step]


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1500, 2**20, 2**63])
def test_bytes_are_within_a_thousandth(size: int) -> None:
    value, unit = format_bytes(size).split()
    scale = 1024 ** ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].index(unit)
    assert math.isclose(float(value) * scale, size, rel_tol=1e-3)
