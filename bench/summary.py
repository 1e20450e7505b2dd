"""What the rows of a campaign say: the headline table, and what differs from an earlier run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from math import exp, log
from statistics import mean
from typing import Any

from bench.harness import AGAIN, BASELINE
from bench.workloads import REAL

Figures = dict[str, Any]

SETS: tuple[tuple[str, str, Callable[[Figures], bool]], ...] = (
    (
        "a",
        "survey, communicating pairs",
        lambda row: row["group"] != REAL and row["bound_bytes"] > 0,
    ),
    ("b", "real workloads", lambda row: row["group"] == REAL and row["bound_bytes"] > 0),
    (
        "c",
        "all of these on which XLA exceeds both tiles",
        lambda row: row["bound_bytes"] > 0 and above_tiles(row, row["runners"].get(BASELINE, {})),
    ),
)
TIE = 1.05
"""A speed-up is a tie if it is within this factor of 1, or if 1 is between its quartiles."""


def above_tiles(row: Figures, record: Figures) -> bool:
    """Whether a program holds an array larger than both ends."""
    largest = record.get("largest_buffer_bytes")
    return largest is not None and largest > max(row["source_tile_bytes"], row["target_tile_bytes"])


def verdict(speed_up: Figures) -> str:
    """above, tie or below."""
    if speed_up["q1"] <= 1 <= speed_up["q3"] or 1 / TIE < speed_up["median"] < TIE:
        return "tie"
    return "above" if speed_up["median"] > 1 else "below"


def geometric_mean(values: Sequence[float]) -> float:
    """exp of the mean log; values above 0."""
    return exp(mean(map(log, values)))


def headline(rows: Sequence[Figures]) -> list[Figures]:
    """One entry per set of workloads and runner."""
    result = []
    for key, title, belongs in SETS:
        chosen = [row for row in rows if belongs(row)]
        names = dict.fromkeys(name for row in chosen for name in row["runners"])
        result += [
            {"set": key, "title": title, "runner": name, **entry(chosen, name)} for name in names
        ]
    return result


def entry(chosen: Sequence[Figures], name: str) -> Figures:
    """The figures of one runner on some rows."""
    pairs = [(row, row["runners"][name]) for row in chosen if name in row["runners"]]
    right = [(row, record) for row, record in pairs if record["status"] == "ok"]
    speeds = [record["speed_up"] for _, record in right if "speed_up" in record]
    tiles = [above_tiles(row, record) for row, record in right if "largest_buffer_bytes" in record]
    moved = [
        (record["received_bytes"], row["bound_bytes"])
        for row, record in right
        if record.get("received_bytes")
    ]
    found: Figures = {
        "pairs": len(pairs),
        "status": dict(Counter(record["status"] for _, record in pairs)),
        "timed": len(speeds),
    }
    if speeds:
        found["speed_up"] = {
            "mean": geometric_mean([s["median"] for s in speeds]),
            "low": geometric_mean([s["q1"] for s in speeds]),
            "high": geometric_mean([s["q3"] for s in speeds]),
            "largest": max(s["median"] for s in speeds),
            "smallest": min(s["median"] for s in speeds),
        }
        found["verdicts"] = dict(Counter(map(verdict, speeds)))
    if tiles:
        found["above_tiles"] = sum(tiles) / len(tiles)
    if moved:
        ratios = [received / bound for received, bound in moved]
        found["received_over_bound"] = {
            "mean": geometric_mean(ratios),
            "worst": max(ratios),
            "sums": sum(r for r, _ in moved) / sum(b for _, b in moved),
        }
    return found


# --- against an earlier run -------------------------------------------------------------------

OURS = ("ours", "collectives", "direct", "paper", "ours on MPI")
EXACT = ("received_bytes", "largest_buffer_bytes", "num_collectives")
FLOOR = 1.1


def noise(rows: Sequence[Figures]) -> float:
    """The factor within which 95% of the speed-ups of XLA over itself are; at least FLOOR."""
    again = [row["runners"].get(AGAIN, {}).get("speed_up") for row in rows]
    factors = sorted(exp(abs(log(s["median"]))) for s in again if s)
    return max([FLOOR, *factors[: max(1, int(0.95 * len(factors)))]])


def regressions(old: Sequence[Figures], new: Sequence[Figures]) -> list[str]:
    """What is worse than in an earlier run, one line each.

    Counts must not grow at all. A speed-up is worse if its quartiles are below the earlier ones and
    its median is so by more than the noise of the two runs together; the geometric mean over all
    workloads of a group if its spread is below the earlier one.
    """
    before = {(row["name"], row["src"], row["dst"]): row for row in old}
    both = [
        (before[key], row)
        for row in new
        if (key := (row["name"], row["src"], row["dst"])) in before
    ]
    factor = noise([a for a, _ in both]) * noise([b for _, b in both])
    found = []
    for a, b in both:
        for name in OURS:
            first, second = (row["runners"].get(name) for row in (a, b))
            if first is not None and second is not None:
                found += [f"{b['name']}, {name}: {text}" for text in worse(first, second, factor)]
    found += worse_means([a for a, _ in both], [b for _, b in both])
    return found


def worse(old: Figures, new: Figures, factor: float) -> Iterator[str]:
    """What is worse in one record."""
    if old["status"] == "ok" and new["status"] != "ok":
        yield f"was ok, is {new['status']}: {new.get('detail', '')}"
        return
    for key in EXACT:
        if key in old and key in new and new[key] > old[key]:
            yield f"{key} {new[key]:,}, was {old[key]:,}"
    if "speed_up" in old and "speed_up" in new:
        a, b = old["speed_up"], new["speed_up"]
        if b["q3"] < a["q1"] and b["median"] * factor < a["median"]:
            yield f"{b['median']:.3g} times as fast as XLA, was {a['median']:.3g}"


def worse_means(old: Sequence[Figures], new: Sequence[Figures]) -> Iterator[str]:
    """Geometric means that are worse; only workloads of both runs count."""
    before = {(e["set"], e["runner"]): e for e in headline(old)}
    for now in headline(new):
        then = before.get((now["set"], now["runner"]))
        if now["runner"] not in OURS or then is None or now["set"] == "c":
            continue
        if "speed_up" not in now or "speed_up" not in then:
            continue
        first, second = then["speed_up"], now["speed_up"]
        if second["high"] < first["low"]:
            yield (
                f"{now['title']}, {now['runner']}: mean speed-up {second['mean']:.3g}, was "
                f"{first['mean']:.3g}"
            )


def compared(old: Sequence[Figures], new: Sequence[Figures]) -> int:
    """How many workloads are in both runs."""
    return len(
        {(r["name"], r["src"], r["dst"]) for r in old}
        & {(r["name"], r["src"], r["dst"]) for r in new}
    )
