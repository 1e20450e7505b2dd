"""Prices beside public figures: within 1.3 of them."""

from __future__ import annotations

from bench import links


def test_prices_are_near_public_figures() -> None:
    entries = [*links.public()]
    assert {len(entry.axes) for entry in entries} == {1, 2, 3}
    assert {"all_to_all", "all_gather", "reduce_scatter", "all_reduce"} == {
        entry.collective for entry in entries
    }
    for entry in entries:
        assert 1 / 1.3 <= links.price(entry) / entry.seconds <= 1.3, entry
