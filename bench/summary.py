"""What the rows of a campaign say: the headline table, and what differs from an earlier run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from math import ceil, exp, inf, log
from statistics import mean, median, stdev
from typing import Any

from scipy.special import stdtrit

from bench.harness import AGAIN, BASELINE
from bench.timing import geometric_mean
from bench.workloads import REAL

Figures = dict[str, Any]

REPORTED = ("jax-ml/jax/issues", "involuntary full rematerialization")
"""In the source of a named workload: it is known because XLA fails on it."""
SETS: tuple[tuple[str, str, Callable[[Figures], bool]], ...] = (
    (
        "a",
        "a sample of the survey, communicating pairs",
        lambda row: row["group"] != REAL and row["bound_bytes"] > 0,
    ),
    (
        "b",
        "named workloads",
        lambda row: row["group"] == REAL and row["bound_bytes"] > 0 and not reported(row),
    ),
    (
        "c",
        "named workloads that are known because XLA fails on them",
        lambda row: row["group"] == REAL and reported(row),
    ),
    (
        "d",
        "all of these on which XLA exceeds both tiles",
        lambda row: row["bound_bytes"] > 0 and above_tiles(row, row["runners"].get(BASELINE, {})),
    ),
)
PAPER_MEAN, PAPER_LARGEST = 1.22, 5.7
"""Speed-ups over XLA that the paper reports, on its hardware."""
FLOOR = 1.05
"""The least factor that is ever taken for noise."""


def above_tiles(row: Figures, record: Figures) -> bool:
    """Whether a program holds an array larger than both ends."""
    largest = record.get("largest_buffer_bytes")
    return largest is not None and largest > max(row["source_tile_bytes"], row["target_tile_bytes"])


def reported(row: Figures) -> bool:
    """Whether a named workload comes from a report that XLA fails on it."""
    return any(text in row["source"] for text in REPORTED)


def noise(rows: Sequence[Figures], share: float = 0.95) -> float:
    """The factor within which that share of XLA's speed-ups over itself are; at least FLOOR."""
    factors = sorted(exp(abs(x)) for x in _logs_of_again(rows))
    return max([FLOOR, *factors[: ceil(share * len(factors))]])


def _logs_of_again(rows: Sequence[Figures]) -> list[float]:
    again = [row["runners"].get(AGAIN, {}).get("speed_up") for row in rows]
    return [log(s["median"]) for s in again if s]


def verdict(speed_up: Figures) -> str:
    """above, tie or below, of one pair, by its own rounds: a tie unless 3 of 4 are on one side."""
    if speed_up["q1"] <= 1 <= speed_up["q3"]:
        return "tie"
    return "above" if speed_up["median"] > 1 else "below"


def standing(speed_up: Figures) -> str:
    """above, tie or below, of a mean: a tie if 1 is in its interval."""
    if speed_up["low"] <= 1 <= speed_up["high"]:
        return "tie"
    return "above" if speed_up["mean"] > 1 else "below"


def interval(values: Sequence[float], bias: float = 0.0) -> Figures:
    """Geometric mean of speed-ups, and its 95% interval over pairs, by Student's t of their logs.

    `bias` widens it: by how much the log of the mean of XLA over itself is off 0 on these pairs.
    """
    logs = [log(value) for value in values]
    # One pair says nothing about others.
    error = stdev(logs) / len(logs) ** 0.5 if len(logs) > 1 else inf
    half = float(stdtrit(max(1, len(logs) - 1), 0.975)) * error + bias
    # No factor is larger than this; JSON has no infinity.
    half = min(half, log(1e6))
    return {
        "mean": exp(mean(logs)),
        "low": exp(mean(logs) - half),
        "high": exp(mean(logs) + half),
    }


def bias(rows: Sequence[Figures]) -> float:
    """By how much the mean log speed-up of XLA over itself is off 0."""
    logs = _logs_of_again(rows)
    return abs(mean(logs)) if logs else 0.0


def over(rows: Sequence[Figures], name: str, other: str) -> Figures | None:
    """How many times as fast one runner is as another: the mean over pairs that both ran."""
    speeds = [[row["runners"].get(n, {}).get("speed_up") for n in (name, other)] for row in rows]
    ratios = [a["median"] / b["median"] for a, b in speeds if a and b]
    return {"pairs": len(ratios), **interval(ratios)} if ratios else None


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
    result: Figures = {
        "pairs": len(pairs),
        "status": dict(Counter(record["status"] for _, record in pairs)),
        "timed": len(speeds),
    }
    if speeds:
        medians = [s["median"] for s in speeds]
        result["speed_up"] = {
            **interval(medians, bias(chosen)),
            "median": median(medians),
            "largest": max(medians),
            "smallest": min(medians),
        }
        result["standing"] = standing(result["speed_up"])
        result["verdicts"] = dict(Counter(map(verdict, speeds)))
    if tiles:
        result["above_tiles"] = sum(tiles) / len(tiles)
    if moved:
        ratios = [received / bound for received, bound in moved]
        result["received_over_bound"] = {
            "mean": geometric_mean(ratios),
            "worst": max(ratios),
            "sums": sum(r for r, _ in moved) / sum(b for _, b in moved),
        }
    return result


# --- against an earlier run -------------------------------------------------------------------

OURS = ("ours", "collectives", "direct", "paper", "ours on MPI")
EXACT = ("received_bytes", "largest_buffer_bytes", "num_collectives")


def regressions(old: Sequence[Figures], new: Sequence[Figures]) -> list[str]:
    """What is worse than in an earlier run, one line each.

    Counts must not grow at all. A speed-up is worse if its quartiles are below the earlier ones and
    its median is so by more than XLA is off itself at worst in the two runs together, since many
    are compared; a geometric mean if the interval of its ratio to the earlier one is below 1.
    """
    both = common(old, new)
    factor = noise([a for a, _ in both], 1.0) * noise([b for _, b in both], 1.0)
    lines = []
    for a, b in both:
        for name in OURS:
            first, second = (row["runners"].get(name) for row in (a, b))
            if first is not None and second is not None:
                lines += [f"{b['name']}, {name}: {text}" for text in worse(first, second, factor)]
    lines += [
        f"{e['title']}, {e['runner']}: mean speed-up {e['now']['mean']:.3g}, was "
        f"{e['then']['mean']:.3g}"
        for e in means(both)
        if e["runner"] in OURS and e["ratio"]["high"] < 1
    ]
    return lines


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


def common(old: Sequence[Figures], new: Sequence[Figures]) -> list[tuple[Figures, Figures]]:
    """The rows of the same workloads in two runs, same sizes included."""
    before = {(row["name"], row["src"], row["dst"]): row for row in old}
    keys = [(row["name"], row["src"], row["dst"]) for row in new]
    return [(before[key], row) for key, row in zip(keys, new, strict=True) if key in before]


def against(old: Figures, new: Figures) -> Figures:
    """What two runs say about the speed-ups on the workloads of both."""
    both = common(old["workloads"], new["workloads"])
    about = {key: old[key] for key in ("date", "commit", "machine")}
    return {**about, "workloads": len(both), "means": means(both), "pairs": by_pair(both)}


def by_pair(both: Sequence[tuple[Figures, Figures]]) -> list[Figures]:
    """Per runner: pairs of two runs, on how many the verdict is the same or the opposite, and the
    names of those whose quartiles do not overlap.
    """
    names = dict.fromkeys(name for _, row in both for name in row["runners"] if name != BASELINE)
    result = []
    for name in names:
        speeds = [
            (row["name"], then, now)
            for old, row in both
            if (then := old["runners"].get(name, {}).get("speed_up"))
            and (now := row["runners"].get(name, {}).get("speed_up"))
        ]
        verdicts = [{verdict(then), verdict(now)} for _, then, now in speeds]
        apart = [n for n, a, b in speeds if a["q3"] < b["q1"] or b["q3"] < a["q1"]]
        if speeds:
            result.append(
                {
                    "runner": name,
                    "pairs": len(speeds),
                    "same": sum(len(pair) == 1 for pair in verdicts),
                    "opposite": verdicts.count({"above", "below"}),
                    "apart": apart,
                }
            )
    return result


def means(both: Sequence[tuple[Figures, Figures]]) -> list[Figures]:
    """Per set and runner the mean speed-ups in two runs on the same workloads.

    `ratio` is new over old: its interval is that over pairs, widened by the biases of both runs.
    """
    first, second = [a for a, _ in both], [b for _, b in both]
    off = bias(first) + bias(second)
    now = {(e["set"], e["runner"]): e for e in headline(second)}
    result = []
    for then in headline(first):
        name = then["runner"]
        later = now.get((then["set"], name), {})
        if name == BASELINE or "speed_up" not in then or "speed_up" not in later:
            continue
        belongs = next(b for key, _, b in SETS if key == then["set"])
        speeds = [
            [row["runners"].get(name, {}).get("speed_up") for row in pair]
            for pair in both
            if belongs(pair[1])
        ]
        ratios = [b["median"] / a["median"] for a, b in speeds if a and b]
        result.append(
            {
                **{key: then[key] for key in ("set", "title", "runner")},
                "pairs": len(ratios),
                "then": then["speed_up"],
                "now": later["speed_up"],
                "verdicts": [then["standing"], later["standing"]],
                "ratio": interval(ratios, off),
            }
        )
    return result
