"""The results of a run as a Markdown page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.harness import AGAIN, BASELINE
from bench.planning_page import table
from bench.summary import TIE, noise
from bench.workloads import REAL

Figures = dict[str, Any]

ORDER = (
    "ours", BASELINE, "Shardy", "DTensor", "paper", "collectives", "direct", "ours on MPI", AGAIN,
)  # fmt: skip
PAPER_MEAN, PAPER_LARGEST = 1.22, 5.7
ABSENT = {"status": "not asked"}
WHAT = {
    "ours": "`rd.plan`, strategy auto, compiled by our jax backend",
    BASELINE: "`jit` of the identity between two shardings",
    "Shardy": "the steps of jaxlib's reshard-to-collectives pass, lowered by our jax backend, since"
    " nothing in jax runs them",
    "DTensor": "redistribution by its graph-based planner on gloo, one process per device; on gloo"
    " DTensor gathers where it would use an all-to-all: bytes and buffers are counted as if it did"
    " not, times are of what it runs",
    "paper": "our implementation of the paper's search, compiled by our jax backend",
    "collectives": "ours without the exchange",
    "direct": "one exchange",
    "ours on MPI": "our plan under MPI, one process per device",
    AGAIN: "the same program in a second process: its distance from 1 is noise",
}


def markdown(results: Figures, images: Sequence[str]) -> str:
    """The page; `images` are the names of the figures beside it."""
    lines = [*opening(results), *headline_lines(results), *figure_lines(images)]
    lines += [*failures(results["workloads"]), *real_lines(results["workloads"])]
    if results.get("planning"):
        lines += planning_lines(results["planning"])
    if results.get("scale"):
        lines += scale_lines(results["scale"])
    for title, text in results.get("sections", ()):
        lines += [f"## {title}", "", text, ""]
    return "\n".join(lines).rstrip() + "\n"


def opening(results: Figures) -> list[str]:
    """When, where, with what, and what the words mean."""
    about = results["machine"]
    effort = results["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    rows = results["workloads"]
    return [
        "# Benchmarks",
        "",
        f"{results['date']}, `{results['command']}`, commit {results['commit']}. {about['cores']} "
        f"cores of {about['cpu']}, load {about['load']} at the start. {versions}. "
        f"{len(rows)} workloads on arrays of about {effort['size_mib']} MiB.",
        "",
        "Every runner is a process of its own with a limit on time and memory. Its result is "
        "compared with the target's tiles bit for bit before anything is timed. Then the "
        "runners of a workload take turns; a speed-up is XLA's seconds over the runner's in the "
        "same round, median over rounds, with quartiles. *Received* is by the device that "
        "receives most, from the compiled HLO (DTensor, MPI: from counters); *bound*: no plan "
        "can do with less. *Above the tiles*: some array in the program is larger than both the "
        "source's tile and the target's.",
        "",
        *table(["runner", "what it is"], [[name, WHAT[name]] for name in ORDER]),
        "",
    ]


def headline_lines(results: Figures) -> list[str]:
    """The headline table, and in words where ours is above XLA and where it is a tie."""
    lines = ["## Headline", ""]
    summary, factor = results["summary"], noise(results["workloads"])
    header = [
        "runner", "pairs timed", "speed-up, geometric mean", "largest", "smallest",
        "above / tie / below XLA", "above the tiles", "received / bound: mean, worst, of sums",
        "not ok",
    ]  # fmt: skip
    for key in dict.fromkeys(entry["set"] for entry in summary):
        entries = {e["runner"]: e for e in summary if e["set"] == key}
        title = next(iter(entries.values()))["title"]
        count = entries[BASELINE]["pairs"] if BASELINE in entries else 0
        lines += [f"### ({key}) {title}: {count}", ""]
        lines += table(header, [headline_row(entries[n]) for n in ORDER if n in entries])
        lines += ["", *in_words(entries.get("ours"), factor), ""]
    lines += [
        f"The paper reports a geometric mean of {PAPER_MEAN}x and at most {PAPER_LARGEST}x over "
        "XLA on its hardware; here devices are virtual, on one CPU. In square brackets: the same "
        "mean of the lower and of the upper quartiles. A tie: 1 lies between the quartiles, or "
        f"the median is within {TIE} of 1. Of XLA's speed-ups over itself, 95% are within a factor "
        f"of {factor:.3g}: what is closer to "
        "1 than that says nothing about a single pair.",
        "",
    ]
    return lines


def headline_row(entry: Figures) -> list[str]:
    """One runner's cells."""
    speed, ratio = entry.get("speed_up"), entry.get("received_over_bound")
    verdicts, status = entry.get("verdicts", {}), entry["status"]
    baseline = entry["runner"] == BASELINE
    return [
        entry["runner"],
        str(entry["timed"]),
        "1" if baseline else _mean(speed),
        "-" if baseline or not speed else f"{speed['largest']:.3g}",
        "-" if baseline or not speed else f"{speed['smallest']:.3g}",
        "-"
        if baseline or not speed
        else " / ".join(str(verdicts.get(word, 0)) for word in ("above", "tie", "below")),
        f"{entry['above_tiles']:.0%}" if "above_tiles" in entry else "-",
        f"{ratio['mean']:.3g}, {ratio['worst']:.3g}, {ratio['sums']:.3g}" if ratio else "-",
        ", ".join(f"{count} {name}" for name, count in status.items() if name != "ok") or "0",
    ]


def _mean(speed: Figures | None) -> str:
    if not speed:
        return "-"
    return f"{speed['mean']:.3g} [{speed['low']:.3g}, {speed['high']:.3g}]"


def in_words(ours: Figures | None, factor: float) -> list[str]:
    """What the row of ours says; `factor` is the noise of one pair's speed-up."""
    if not ours or "speed_up" not in ours:
        return []
    speed, verdicts = ours["speed_up"], ours["verdicts"]

    def against(value: float, low: float, high: float, paper: float) -> str:
        if low <= paper <= high:
            return f"a tie with the paper's {paper}x"
        return f"{'above' if value > paper else 'below'} the paper's {paper}x"

    mean, largest = speed["mean"], speed["largest"]
    of_mean = against(mean, speed["low"], speed["high"], PAPER_MEAN)
    of_largest = against(largest, largest / factor, largest * factor, PAPER_LARGEST)
    return [
        f"Ours is faster than XLA on {verdicts.get('above', 0)} of {ours['timed']} pairs, a tie on "
        f"{verdicts.get('tie', 0)}, slower on {verdicts.get('below', 0)}. Its geometric mean, "
        f"{mean:.3g}x, is {of_mean}; its largest, {largest:.3g}x, is {of_largest} (a tie: within "
        "the spread)."
    ]


def figure_lines(images: Sequence[str]) -> list[str]:
    """The figures."""
    return [line for image in images for line in (f"![{image.split('.')[0]}]({image})", "")]


def failures(rows: Sequence[Figures]) -> list[str]:
    """Every wrong, crashed or late runner, by name; the others are counted above."""
    bad = [
        [row["name"], f"`{row['src']}` to `{row['dst']}` on {row['mesh']}", name, r["status"],
         r.get("detail", "").replace("|", "\\|")]
        for row in rows
        for name, r in row["runners"].items()
        if r["status"] in {"wrong", "crashed", "timeout"}
    ]  # fmt: skip
    if not bad:
        return ["No runner was wrong, crashed or late.", ""]
    lines = ["## Wrong, crashed, late", ""]
    return [*lines, *table(["workload", "layouts", "runner", "status", "what"], bad), ""]


def real_lines(rows: Sequence[Figures]) -> list[str]:
    """The named workloads one by one."""
    lines = ["## Real workloads", ""]
    names = ("ours", BASELINE, "Shardy", "DTensor")
    header = ["workload", "layouts", "source"]
    header += [f"received / bound, {name}" for name in names]
    header += ["largest array / larger tile, ours", BASELINE]
    header += [f"speed-up, {name}" for name in ("ours", "Shardy", "DTensor")]
    body = []
    for row in rows:
        if row["group"] != REAL:
            continue
        records = {n: row["runners"].get(n, ABSENT) for n in names}
        cells = [row["name"], f"`{row['src']}` to `{row['dst']}` on {row['mesh']}", row["source"]]
        tile = max(row["source_tile_bytes"], row["target_tile_bytes"])
        cells += [_over(records[n], "received_bytes", row["bound_bytes"]) for n in names]
        cells += [_over(records[n], "largest_buffer_bytes", tile) for n in names[:2]]
        cells += [_speed(records[n]) for n in ("ours", "Shardy", "DTensor")]
        body.append(cells)
    return [*lines, *table(header, body), ""]


def _over(record: Figures, key: str, base: int) -> str:
    if record["status"] != "ok":
        return str(record["status"])
    return f"{record[key] / base:.3g}" if base and key in record else "-"


def _speed(record: Figures) -> str:
    speed = record.get("speed_up")
    if speed is None:
        return "-" if record["status"] == "ok" else str(record["status"])
    return f"{speed['median']:.3g} [{speed['q1']:.3g}, {speed['q3']:.3g}]"


def planning_lines(planning: Figures) -> list[str]:
    """Planning and pricing time against the size of the mesh and the number of axes."""
    header = ["mesh", "devices", "collectives, us", "auto, us", "direct, us"]
    names = ("collectives", "auto", "direct")
    rows = [
        ["x".join(map(str, row["axes"])), f"{row['devices']:,}"]
        + [f"{row['cpu_us'][n]['median']:,.0f}" for n in names]
        for row in planning["sizes"]
    ]
    rows += [
        [f"{row['axes']} axes of 2", f"{row['devices']:,}"]
        + [f"{row['cpu_us'][n]['median']:,.0f}" for n in names]
        for row in planning["axes"]
    ]
    return [
        "## Planning",
        "",
        f"`{planning['command']}`: CPU microseconds of one cold `rd.plan`, which prices what it "
        "plans; medians over pairs. Other planners beside it: [planning.md](planning.md).",
        "",
        *table(header, rows),
        "",
    ]


def scale_lines(rows: Sequence[Figures]) -> list[str]:
    """Simulated times on thousands of devices."""
    header = [
        "redistribution", "mesh", "devices", "links", "ours, simulated ms", "XLA, simulated ms",
        "ratio", "received / bound, ours", BASELINE, "XLA's plan",
    ]  # fmt: skip
    body = []
    for row in rows:
        xla = row["xla_seconds"]
        bound = row["bound_bytes"]
        over = [row["ours_received_bytes"], row["xla_received_bytes"]]
        body.append(
            [
                row["family"],
                row["mesh"],
                f"{row['devices']:,}",
                row["profile"],
                f"{row['ours_seconds'] * 1e3:.3g}",
                f"{xla * 1e3:.3g}" if xla is not None else "-",
                f"{xla / row['ours_seconds']:.3g}" if xla is not None else "-",
                *(f"{n / bound:.3g}" if n is not None and bound else "-" for n in over),
                "; ".join(row.get("xla_collectives", [])) + f" ({row['xla']})",
            ]
        )
    return [
        "## Simulation at 4,096 and 65,536 devices",
        "",
        "**A simulation: nothing in this table was run or timed.** Both plans are priced by the "
        "same rule, latency + bytes / bandwidth of the slowest axis that a collective crosses; "
        "local copies are free. XLA's plan is read from the HLO of two smaller meshes on which "
        "one axis size differs, carried over where its collectives agree and their bytes are c "
        "n^p, and compared with what XLA compiles at a third size. Links and their sources: "
        "redistrib/profiles.",
        "",
        *table(header, body),
        "",
    ]
