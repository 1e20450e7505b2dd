"""The pages are well formed, stand alone, and say what the objects say."""

from __future__ import annotations

import html.parser
import time
from pathlib import Path
from typing import Any

import pytest

import redistrib as rd
from redistrib import display

MESH = rd.Mesh(x=2, y=4)
REMOTE = ("http", "<script", "url(", "@import", "<link")


def parse(text: str, mesh: rd.Mesh = MESH) -> rd.ArrayType:
    return rd.ArrayType.parse(text, mesh)


class Page(html.parser.HTMLParser):
    """Checks that tags nest; keeps the text, and of pictures and buttons what a reader hears."""

    VOID = ("meta", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.pictures: list[str | None] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        assert not [name for name, _ in attrs if name in ("src", "href") or name.startswith("on")]
        if tag == "svg":
            self.pictures.append(dict(attrs).get("aria-label"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def check_page(shown: Any) -> Page:
    text = display.to_page(shown)
    page = Page(text)
    assert not [word for word in REMOTE if word in text]
    assert all(page.pictures)
    assert shown._repr_html_() in text
    return page


@pytest.mark.parametrize("dst", ["f32[4096]", "f32[4096{y}]", "f32[4096{y,x}]", "f32[4096{x}]"])
def test_the_page_of_a_plan(dst: str, tmp_path: Path) -> None:
    plan = rd.plan(parse("f32[4096{x}]"), parse(dst))
    page = check_page(plan)
    for t in plan.types:
        assert str(t) in page.text
    assert str(plan) in page.text
    assert "Alternatives" in page.text
    plan.to_html(tmp_path / "plan.html")
    assert (tmp_path / "plan.html").read_text(encoding="utf-8") == display.to_page(plan)


def test_the_command_on_a_page_makes_the_plan() -> None:
    plan = rd.plan(parse("f32[64{x}]"), parse("f32[64{y}]"), strategy="direct", memory_limit="1MiB")
    command = "redistrib plan --mesh x=2,y=4 --strategy direct --memory-limit 1048576 "
    assert command + "'f32[64{x}]' 'f32[64{y}]'" in check_page(plan).text


def test_the_stepper_has_a_panel_for_each_step() -> None:
    ends = parse("f32[64{x}, 64{y}]"), parse("f32[64{y}, 64{x}]")
    plan = rd.plan(*ends, strategy="collectives")
    text = display.to_html(plan)
    assert text.count('<input type="radio"') == text.count("<section>") == len(plan.steps) + 1
    assert text.count('checked="checked"') == 1


@pytest.mark.parametrize("text", ["f32[]", "f32[0{x}, 3]", "f32[8{x}, 4, 4{y}] max{}", "f32[8]"])
def test_the_page_of_a_type(text: str) -> None:
    t = parse(text.removesuffix(" max{}"))
    page = check_page(t)
    assert str(t) in page.text


def test_the_page_of_a_partial_type_says_so() -> None:
    assert "partial max" in check_page(parse("f32[8{x}] max{y}")).text


def test_the_page_of_an_explanation_has_every_alternative() -> None:
    found = rd.explain(parse("f32[64{x}]"), parse("f32[64{y}]"))
    page = check_page(found)
    assert all(name in page.text for name, _ in found.alternatives)
    assert page.text.count("chosen") == 1


def test_the_page_of_a_matrix() -> None:
    types = [parse(text) for text in ("f32[64{x}]", "f32[64{y}]", "f32[64]")]
    page = check_page(rd.Oracle(MESH).matrix(types, types))
    assert all(page.text.count(str(t)) == 2 for t in types)
    text = str(rd.Oracle(MESH).matrix(types, types))
    assert text.splitlines()[0] == "seconds from 3 sources (down) to 3 targets (across)"
    assert text.splitlines()[-1].split() == ["2", "f32[64]", "0", "s", "0", "s", "0", "s"]


def test_the_page_of_a_plan_on_4096_devices_is_small_and_quick() -> None:
    mesh = rd.Mesh(x=64, y=64)
    ends = parse("f32[4096{x}, 4096{y}]", mesh), parse("f32[4096{y}, 4096{x}]", mesh)
    for strategy in ("collectives", "direct"):
        plan = rd.plan(*ends, strategy=strategy)
        start = time.process_time()
        text = display.to_page(plan)
        assert time.process_time() - start < 2
        assert len(text.encode()) < 2_000_000


def test_a_page_looks_at_few_of_a_million_devices() -> None:
    """Here every device receives from 1,024 others, a block from each."""
    mesh = rd.Mesh(x=1024, y=1024)
    ends = parse("f32[1048576{x,y}, 1024]", mesh), parse("f32[1048576, 1024{x}]", mesh)
    plan = rd.plan(*ends, strategy="direct")
    start = time.process_time()
    assert "straight from devices that hold it" in display.to_page(plan)
    assert time.process_time() - start < 2


def test_what_is_shown_is_escaped() -> None:
    assert "&lt;b&gt;" in display.page("<b>", "")
    with pytest.raises(TypeError, match="no page is registered for int"):
        display.to_html(3)
    with pytest.raises(TypeError, match="no text is registered for int"):
        display.to_text(3)
