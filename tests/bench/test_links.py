"""Prices beside public figures: within 1.3 of them, but for what a ring shares."""

from __future__ import annotations

from bench import links


def test_prices_are_near_public_figures() -> None:
    entries = [entry for entry in links.public() if entry.collective != "all_to_all"]
    assert len(entries) >= 10
    for entry in entries:
        assert 1 / 1.3 <= links.price(entry) / entry.seconds <= 1.3, entry
