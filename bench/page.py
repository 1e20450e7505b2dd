"""The results of a run as a Markdown page."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from bench.coverage import missing
from bench.harness import AGAIN, BASELINE
from bench.journal import duration
from bench.planning_page import SCALED, table, times_text
from bench.sections import SURVEY
from bench.summary import PAPER_LARGEST, PAPER_MEAN, SETS, over
from bench.workloads import REAL

Figures = dict[str, Any]

ORDER = (
    "ours", BASELINE, "Shardy", "DTensor", "paper", "collectives", "direct", "ours on MPI", AGAIN,
)  # fmt: skip
ABSENT = {"status": "not asked"}
WHAT = {
    "ours": "`rd.plan`, strategy auto, compiled by our jax backend",
    BASELINE: "`jit` of the identity between two shardings",
    "Shardy": "the steps of jaxlib's reshard-to-collectives pass, lowered by our jax backend, since"
    " nothing in jax runs them: what it would send, not how XLA would run it",
    "DTensor": "redistribution by its graph-based planner on gloo, one process per device; on gloo"
    " DTensor gathers where it would use an all-to-all: bytes and buffers are counted as if it did"
    " not, times are of what it runs",
    "paper": "our implementation of the paper's search, compiled by our jax backend",
    "collectives": "ours without the exchange",
    "direct": "one exchange",
    "ours on MPI": "our plan under MPI, one process per device",
    AGAIN: "the same program in a second process: its distance from 1 is noise",
}
BESIDE_XLA = {"above": "faster than XLA", "tie": "a tie with XLA", "below": "slower than XLA"}
QUICK_DECIDES = (
    " This is the quick form: it shows a change of the mean that is larger than these intervals, "
    "a program that is wrong, late or crashes, and bytes and buffers exactly; a tie on its few "
    "pairs says nothing of the survey."
)


def markdown(results: Figures, images: Sequence[str]) -> str:
    """The page; `images` are the names of the figures beside it."""
    rows = results["workloads"]
    lines = [*opening(results), *headline_lines(results), *counts_lines(rows)]
    lines += figure_lines(images)
    if results.get("against"):
        lines += against_lines(results["against"])
    if rows:
        lines += [*failures(rows), *real_lines(rows)]
    if results.get("planning"):
        lines += planning_lines(results["planning"])
    if results.get("scale"):
        lines += scale_lines(results["scale"])
    for title, text in results.get("sections", ()):
        if title == SURVEY:
            continue
        lines += [f"## {title}", "", text, ""]
    return "\n".join(lines).rstrip() + "\n"


def opening(results: Figures) -> list[str]:
    """When, where, with what, and what the words mean."""
    about = results["machine"]
    effort = results["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    rows = results["workloads"]
    seconds = results.get("seconds", {})
    took = ", ".join(f"{part or 'start'} {duration(s)}" for part, s in seconds.items() if s >= 1)
    lines = [
        "# Benchmarks",
        "",
        f"{results['date']}, `{results['command']}`, commit {results['commit']}. {about['cores']} "
        f"cores of {about['cpu']}, load {about['load']} at the start. {versions}."
        + f" {len(rows)} workloads on arrays of {effort['size_mib']} MiB to about twice that."
        * bool(rows)
        + (f" It took {duration(sum(seconds.values()))} ({took})." if seconds else ""),
        "",
        *missing_lines(results),
    ]
    if not rows:
        return lines
    return [
        *lines,
        "Every runner is a process of its own with a limit on time and memory. Its result is "
        "compared with the target's tiles bit for bit before anything is timed. Then the "
        "runners of a workload take turns; a speed-up is XLA's seconds on the wall over the "
        "runner's in the same round, median over rounds, with quartiles. *Received* is by the "
        "device that receives most, from the compiled HLO (DTensor, MPI: from counters); *bound*: "
        "no plan can do with less. *Above the tiles*: some array in the program is larger than "
        "both the source's tile and the target's.",
        "",
        *table(["runner", "what it is"], [[name, WHAT[name]] for name in ORDER]),
        "",
    ]


def missing_lines(results: Figures) -> list[str]:
    """What the page does not have; nothing if that is nothing."""
    items = [f"- {part}: {why}." for part, why in missing(results)]
    return ["**This is not the whole benchmark.** Missing:", "", *items, ""] if items else []


def headline_lines(results: Figures) -> list[str]:
    """Every pair of the survey, where they were measured; then what was measured in turns with all
    runners, in words and as tables.
    """
    rows, summary = results["workloads"], results["summary"]
    sets = {
        key: {e["runner"]: e for e in summary if e["set"] == key}
        for key in dict.fromkeys(entry["set"] for entry in summary)
    }
    lines = []
    if survey := dict(results.get("sections", ())).get(SURVEY):
        lines += ["## Headline: every pair of the survey", "", survey, ""]
    if not sets:
        return lines
    lines += ["## All runners in turns", ""]
    lines += [line for entries in sets.values() for line in in_words(entries, rows)]
    again = [e["speed_up"] for e in summary if e["runner"] == AGAIN and "speed_up" in e]
    lines += [
        "",
        "A pair is a tie unless three of four of its own rounds are on one side of 1; how often "
        f"that errs is in the rows of {AGAIN}. In square brackets: the 95% interval of the mean "
        "over pairs (Student's t of the logarithms), widened by what the mean of XLA over itself "
        "is off 1; a mean is a tie if 1 is in it."
        + f" {AGAIN} is {' and '.join(mean_text(e) for e in again)} here." * bool(again)
        + QUICK_DECIDES * ("--quick" in results["command"].split()),
        "",
        f"The paper reports {PAPER_MEAN}x in the mean and at most {PAPER_LARGEST}x, on its own "
        "hardware and pairs. Here devices are virtual, on one CPU, and a copy within a device "
        "costs as much as one between devices: the two are not comparable.",
        "",
    ]
    header = [
        "runner", "pairs timed", "speed-up over XLA, geometric mean", "is", "median", "largest",
        "least", "pairs above / tie / below", "above the tiles",
        "received / bound: mean, worst, of sums", "not ok",
    ]  # fmt: skip
    for entries in sets.values():
        lines += [f"### {_title(entries)}", ""]
        lines += table(header, [headline_row(entries[n]) for n in ORDER if n in entries])
        lines.append("")
    return lines


def _title(entries: Figures) -> str:
    first = next(iter(entries.values()))
    return f"({first['set']}) {first['title']}: {first['pairs']}"


def headline_row(entry: Figures) -> list[str]:
    """One runner's cells."""
    speed, ratio = entry.get("speed_up"), entry.get("received_over_bound")
    cells = ["1" if entry["runner"] == BASELINE else "-", *["-"] * 5]
    if speed and entry["runner"] != BASELINE:
        cells = [
            mean_text(speed),
            entry["standing"],
            *(f"{speed[key]:.3g}" for key in ("median", "largest", "smallest")),
            " / ".join(str(entry["verdicts"].get(word, 0)) for word in ("above", "tie", "below")),
        ]
    return [
        entry["runner"],
        str(entry["timed"]),
        *cells,
        f"{entry['above_tiles']:.0%}" if "above_tiles" in entry else "-",
        f"{ratio['mean']:.3g}, {ratio['worst']:.3g}, {ratio['sums']:.3g}" if ratio else "-",
        ", ".join(f"{n} {name}" for name, n in entry["status"].items() if name != "ok") or "0",
    ]


def mean_text(speed: Figures) -> str:
    """A mean and its interval; one pair has none."""
    inside = f" [{speed['low']:.3g}, {speed['high']:.3g}]" if speed["high"] < 1e3 else ""
    return f"{speed['mean']:.3g}{inside}"


def in_words(entries: Figures, rows: Sequence[Figures]) -> list[str]:
    """What the row of ours says, as an item, and how it stands beside Shardy's pass."""
    ours, xla = entries.get("ours", {}), entries.get(BASELINE, {})
    if "speed_up" not in ours:
        return []
    speed, verdicts = ours["speed_up"], ours["verdicts"]
    more = ""
    if "above_tiles" in ours and "above_tiles" in xla:
        more = (
            f" Above the tiles: ours {ours['above_tiles']:.0%} of the pairs, XLA "
            f"{xla['above_tiles']:.0%}."
        )
    if untimed := ours["pairs"] - ours["timed"]:
        why = [
            f"{name} {count} {status}"
            for name, entry in ((BASELINE, xla), ("ours", ours))
            for status, count in entry.get("status", {}).items()
            if status != "ok"
        ]
        more += f" No speed-up on {untimed} more: {', '.join(why)}."
    belongs = next(belongs for key, _, belongs in SETS if key == ours["set"])
    if beside := over([row for row in rows if belongs(row)], "ours", "Shardy"):
        more += f" Over Shardy's pass: {mean_text(beside)}x on {beside['pairs']} pairs."
    return [
        f"- {_title(entries)}. Ours is {BESIDE_XLA[ours['standing']]} in the mean, "
        f"{mean_text(speed)}x; median {speed['median']:.3g}x, least {speed['smallest']:.3g}x, "
        f"largest {speed['largest']:.3g}x. Faster on {verdicts.get('above', 0)} of "
        f"{ours['timed']} pairs, a tie on {verdicts.get('tie', 0)}, slower on "
        f"{verdicts.get('below', 0)}.{more}"
    ]


def against_lines(comparison: Figures) -> list[str]:
    """This run beside an earlier one, on the workloads of both: means, then pairs."""
    machine = comparison["machine"]
    lines = [
        f"## Against {comparison['date']}",
        "",
        f"Commit {comparison['commit']}, {machine['cores']} cores of {machine['cpu']}, load "
        f"{machine['load']} at the start; the {comparison['workloads']} workloads of both runs. "
        "*Now / then*: the geometric mean over pairs and its 95% interval, widened by what XLA's "
        "mean over itself is off 1 in both runs. *Apart*: the quartiles of the two runs do not "
        "overlap.",
        "",
    ]
    header = ["set", "runner", "pairs", "then", "now", "verdicts", "now / then"]
    body = [
        [m["set"], m["runner"], m["pairs"], mean_text(m["then"]), mean_text(m["now"]),
         ", ".join(m["verdicts"]), mean_text(m["ratio"])]
        for m in comparison["means"]
    ]  # fmt: skip
    lines += [*table(header, body), ""]
    header = ["runner", "pairs", "same verdict", "opposite verdict", "apart"]
    body = [
        [p["runner"], p["pairs"], p["same"], p["opposite"], ", ".join(p["apart"]) or "-"]
        for p in comparison["pairs"]
    ]
    return [*lines, *table(header, body), ""]


def counts_lines(rows: Sequence[Figures]) -> list[str]:
    """What is known of each runner's programs besides time and bytes."""
    body = []
    for name in ORDER[:-1]:
        records = [
            (record, max(row["source_tile_bytes"], row["target_tile_bytes"]))
            for row in rows
            if row["bound_bytes"] and (record := row["runners"].get(name, ABSENT))["status"] == "ok"
        ]
        temps = [record["temp_bytes"] / tile for record, tile in records if "temp_bytes" in record]
        calls = [record["num_collectives"] for record, _ in records]
        if not records:
            continue
        body.append(
            [
                name,
                len(records),
                f"{median(temps):.3g}, {max(temps):.3g}" if temps else "-",
                f"{sum(calls) / len(calls):.2f}, {max(calls)}",
                _median(
                    [r["planning_seconds"] * 1e6 for r, _ in records if "planning_seconds" in r]
                ),
                _median([r["compile_seconds"] * 1e3 for r, _ in records if "compile_seconds" in r]),
            ]
        )
    if not body:
        return []
    header = [
        "runner", "pairs", "temporaries / larger tile: median, worst",
        "collectives in the program: mean, most", "planning, us", "compiling, ms",
    ]  # fmt: skip
    return [
        "### All pairs that communicate: programs",
        "",
        "Temporaries are the compiler's figure. An exchange in rounds counts once per round. "
        "Planning and compiling: medians of the first time, on the wall.",
        "",
        *table(header, body),
        "",
    ]


def _median(values: Sequence[float]) -> str:
    return f"{median(values):.3g}" if values else "-"


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
    header = ["mesh", "devices", *(f"{name}, us" for name in SCALED)]
    rows = [
        [times_text(row[mesh]), f"{row['devices']:,}"]
        + [f"{row['cpu_us'][n]['median']:,.0f}" for n in SCALED]
        for mesh, kind in (("axes", "sizes"), ("mesh", "axes"))
        for row in planning[kind]
    ]
    return [
        "## Planning",
        "",
        f"`{planning['command']}`: CPU microseconds of one cold `rd.plan`, which prices what it "
        "plans, and of one cold `Oracle.cost`; medians over pairs of layouts of whole axes. Other "
        "planners beside it: [planning.md](planning.md).",
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
        "same rule, latency + bytes / bandwidth of the slowest link that a collective crosses, "
        "also in one collective for each link where that is cheaper; local copies are free. XLA's "
        "plan is read from the HLO of two smaller meshes on which one axis size differs, carried "
        "over where its collectives agree and their bytes are c n^p, and compared with what XLA "
        "compiles at a third size. Links and their sources: redistrib/profiles.",
        "",
        *table(header, body),
        "",
    ]
