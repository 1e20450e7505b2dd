"""Views of plans say what the plan says."""

from __future__ import annotations

import html.parser
import math
from pathlib import Path

import pytest

import redistrib as rd
from redistrib import report

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
    assert f"lower bound {report.format_bytes(plan.lower_bound_bytes)}" in text
    assert report.format_bytes(plan.received_bytes) in text
    assert "source 8 MiB, target 8 MiB" in text
    assert "would receive 56 MiB and peak at 64 MiB" in text
    steps = lines[lines.index("") + 2 :]
    assert len(steps) == len(plan.steps)
    for number, (line, step) in enumerate(zip(steps, plan.steps, strict=True), start=1):
        assert line.split()[:2] == [str(number), step.collective]


def test_times_are_those_of_the_profile_of_the_plan() -> None:
    slow = rd.Profile("slow", rd.Link(latency=2.0, bandwidth=1e30))
    ends = (rd.ArrayType.parse(text, transposition().src.mesh) for text in (SRC, DST))
    plan = rd.plan(*ends, strategy="collectives", profile=slow)
    assert [row[-1] for row in report.rows(plan)] == ["2 s"] * len(plan.steps)
    assert ("time", f"{2 * len(plan.steps)} s estimated, profile slow") in report.header(plan)


def test_details() -> None:
    plan = transposition()
    concise = report.to_text(plan, "concise")
    assert "\n" not in concise
    assert concise.startswith(f"{SRC} -> {DST}: ")
    full = report.to_text(plan, "full")
    assert full.startswith(str(plan))
    for t in plan.types:
        assert str(t) in full


@pytest.mark.parametrize("text", TYPES)
def test_every_view_of_a_plan_without_steps(text: str) -> None:
    plan = rd.plan(parse(text), parse(text))
    assert "nothing to do" in str(plan)
    assert "nothing to do" in report.to_text(plan, "concise")
    assert "Nothing to do" in report.to_html(plan)


def test_the_terminal_table_agrees_with_the_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    plan = transposition()
    report.print_rich(plan)
    shown = capsys.readouterr().out
    for _, value in report.header(plan):
        assert value in shown
    for row in report.rows(plan):
        assert all(cell in shown for cell in row)


@pytest.mark.parametrize("text", TYPES)
def test_sheets_show_each_block_on_the_devices_that_hold_it(text: str) -> None:
    t = parse(text)
    sheets = report.sheets(t)
    assert sheets is not None
    cells = [devices for sheet in sheets for row in sheet.devices for devices in row]
    # Every device holds as many blocks as every other; a block is on some device.
    counts = [sum(position in cell for cell in cells) for position in range(8)]
    assert len(set(counts)) == 1
    assert all(cells)
    assert sum(counts) == sum(map(len, cells))


def test_a_sheet_against_the_semantics() -> None:
    t = parse("f32[8{_2,x}, 8{y}]")
    (sheet,) = report.sheets(t) or []
    for down, row in zip(sheet.down, sheet.devices, strict=True):
        for across, devices in zip(sheet.across, row, strict=True):
            first = [int(label.partition(":")[0]) for label in (down, across)]
            for position in range(8):
                held = all(
                    index in axis for index, axis in zip(first, t.tile(position), strict=True)
                )
                assert held == (position in devices)


def test_pictures() -> None:
    assert report.picture(parse("f32[8{x}, 4] sum{y}")) == "\n".join(
        [
            "f32[8{x}, 4] sum{y}",
            "  0:4  4:8",
            "  0-3  4-7",
            "  each block is a partial sum on its devices",
        ]
    )
    reordered = rd.Mesh({"x": 2}, devices=[5, 3])
    assert report.picture(parse("f32[2{x}]", reordered)).splitlines()[-1].split() == ["5", "3"]
    many = rd.Mesh(x=128)
    assert "too many" in report.picture(parse("f32[128{x}]", many))


class Page(html.parser.HTMLParser):
    """Checks that tags nest, and collects those that could load something."""

    VOID = ("meta",)

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.remote: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.remote += [name for name, _ in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("dst", ["f32[4096]", "f32[4096{y}]", "f32[4096{y,x}]"])
def test_the_page_is_well_formed_and_stands_alone(dst: str, tmp_path: Path) -> None:
    plan = rd.plan(parse("f32[4096{x}]"), parse(dst))
    plan.to_html(str(tmp_path / "plan.html"))
    text = (tmp_path / "plan.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.remote == []
    assert "script" not in text
    assert "url(" not in text
    for t in plan.types:
        assert str(t) in page.text
    assert plan._repr_html_() in text


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1500, 2**20, 2**63])
def test_bytes_are_within_a_thousandth(size: int) -> None:
    value, unit = report.format_bytes(size).split()
    scale = 1024 ** ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].index(unit)
    assert math.isclose(float(value) * scale, size, rel_tol=1e-3)
