"""The pages in a browser: no errors, the keyboard steps, nothing scrolls sideways on a phone.

Needs the package playwright and a Chromium on the path: `make browser`.
"""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import redistrib as rd
from redistrib import display

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
MISSING = CHROMIUM is None or importlib.util.find_spec("playwright") is None
pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(MISSING, reason="needs the package playwright and a Chromium"),
]
PROBLEMS = {
    8: ("x=2,y=4", "f32[4096{x}, 4096{y}]", "f32[4096{y}, 4096{x}]"),
    64: ("x=8,y=8", "f32[4096{x}, 4096{y}, 64]", "f32[4096{y}, 4096, 64{x}]"),
    4096: ("x=16,y=16,z=16", "f32[4096{x}, 4096{y}] sum{z}", "f32[4096{y,z}, 4096{x}]"),
}
PHONE, DESK = 390, 1200
OVERFLOW = "document.documentElement.scrollWidth"
LOADED = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
SHOWN = "[...document.querySelectorAll('section')].map(s => getComputedStyle(s).display != 'none')"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


def plan_of(devices: int) -> rd.Plan:
    axes, src, dst = PROBLEMS[devices]
    mesh = rd.Mesh(axes)
    ends = rd.ArrayType.parse(src, mesh), rd.ArrayType.parse(dst, mesh)
    return rd.plan(*ends, strategy="collectives")


@pytest.mark.parametrize("devices", PROBLEMS)
@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_plan(
    browser: Any, tmp_path: Path, devices: int, width: int, scheme: str
) -> None:
    plan = plan_of(devices)
    start = time.process_time()
    file = tmp_path / "plan.html"
    plan.to_html(file)
    made = time.process_time() - start
    size = {"width": width, "height": 900}
    page = browser.new_page(viewport=size, color_scheme=scheme)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(file.as_uri())
    assert made + page.evaluate(LOADED) / 1000 < 2
    assert file.stat().st_size < 2_000_000
    page.keyboard.press("Tab")
    for number in range(len(plan.steps) + 1):
        assert page.evaluate(SHOWN) == [number == n for n in range(len(plan.steps) + 1)]
        assert page.evaluate(OVERFLOW) <= width
        page.screenshot(path=tmp_path / f"{number}.png", full_page=True)
        page.keyboard.press("ArrowRight")
    assert page.evaluate(SHOWN)[0]  # round to the first
    assert said == []
    page.close()


def test_without_scripts_the_page_is_the_same(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.set_content(display.to_page(plan_of(8)))
    page.get_by_text("2 all_to_all").first.click()
    assert page.get_by_text("In each of 4 groups of 2").is_visible()
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out(browser: Any, scheme: str) -> None:
    """The contrast of every text with what is behind it is at least 4.5."""
    page = browser.new_page(color_scheme=scheme)
    page.set_content(display.to_page(plan_of(8)))
    assert page.evaluate(CONTRASTS) >= 4.5
    page.close()


CONTRASTS = """() => {
  const channel = c => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  const read = text => text.match(/[\\d.]+/g).map(Number);
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  const behind = node => {
    for (; node; node = node.parentElement) {
      const colour = read(getComputedStyle(node).backgroundColor);
      if (colour.length == 3 || colour[3] == 1) return colour;
    }
    return dark ? [18, 18, 18] : [255, 255, 255];
  };
  const ratios = [...document.querySelectorAll('.redistrib *')]
    .filter(node => [...node.childNodes].some(n => n.nodeType == 3 && n.textContent.trim()))
    .filter(node => node.checkVisibility() && !node.closest('svg'))
    .map(node => {
      const style = getComputedStyle(node), opacity = Number(style.opacity), back = behind(node);
      const mixed = (c, i) => c * opacity + back[i] * (1 - opacity);
      const colour = read(style.color).slice(0, 3).map(mixed);
      const [a, b] = [light(colour), light(back)].sort((x, y) => y - x);
      return (a + .05) / (b + .05);
    });
  return Math.min(...ratios);
}"""
