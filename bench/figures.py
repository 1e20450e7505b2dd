"""The figures of a run, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from bench.harness import BASELINE
from bench.page import PAPER_LARGEST, PAPER_MEAN

Figures = dict[str, Any]

COLOURS = {
    "ours": "#0b5fa5",
    BASELINE: "#c23b22",
    "Shardy": "#e19b2c",
    "DTensor": "#7a4ea3",
    "paper": "#3a9d5d",
    "collectives": "#0b5fa5",
    "auto": "#111111",
    "direct": "#888888",
}


def draw(results: Figures, directory: Path) -> list[str]:
    """Write every figure that there is data for; the names of the files."""
    drawn: list[tuple[str, Callable[[Any], None], Any]] = [
        ("speed-up", speed_up, results["workloads"]),
        ("memory", memory, results["workloads"]),
        ("volume", volume, results["workloads"]),
        ("planning", planning, results.get("planning")),
        ("simulation", simulation, results.get("scale")),
    ]
    directory.mkdir(parents=True, exist_ok=True)
    names = []
    for name, plot, data in drawn:
        if not data:
            continue
        plt.figure(figsize=(7, 4), dpi=110, layout="constrained")
        plot(data)
        file = f"benchmarks-{name}.png"
        plt.savefig(directory / file, metadata={"Software": None})
        plt.close()
        names.append(file)
    return names


def speed_up(rows: Sequence[Figures]) -> None:
    """Speed-ups over XLA, sorted, as in the paper's figure."""
    for name in ("ours", "paper", "Shardy", "DTensor"):
        found = sorted(
            record["speed_up"]["median"]
            for row in rows
            if "speed_up" in (record := row["runners"].get(name, {}))
        )
        if found:
            share = [(at + 0.5) / len(found) for at in range(len(found))]
            plt.plot(share, found, color=COLOURS[name], label=f"{name} ({len(found)} pairs)")
    plt.axhline(1, color="black", linewidth=0.8)
    for value in (PAPER_MEAN, PAPER_LARGEST):
        plt.axhline(value, color="grey", linestyle=":", linewidth=0.8)
        plt.annotate(f"paper: {value}x", (0, value), color="grey", fontsize=8, va="bottom")
    plain_log_axis()
    plt.xlim(0, 1)
    plt.xlabel("share of the pairs")
    plt.ylabel("XLA's time / runner's time")
    plt.title("Speed-up over XLA's resharding on CPU")
    plt.legend()


def memory(rows: Sequence[Figures]) -> None:
    """The largest array in the program over the larger tile, sorted."""

    def over(row: Figures, record: Figures) -> float:
        tile: int = max(row["source_tile_bytes"], row["target_tile_bytes"])
        return float(record["largest_buffer_bytes"] / tile)

    _sorted_ratios(rows, "largest_buffer_bytes", over)
    plt.ylabel("largest array / larger of the two tiles")
    plt.title("Memory: what a program holds beyond its ends")


def volume(rows: Sequence[Figures]) -> None:
    """Received bytes over the bound, sorted."""
    _sorted_ratios(
        [row for row in rows if row["bound_bytes"]],
        "received_bytes",
        lambda row, record: float(record["received_bytes"] / row["bound_bytes"]),
    )
    plt.ylabel("received bytes / lower bound")
    plt.title("Volume: what the worst device receives")


def _sorted_ratios(
    rows: Sequence[Figures], key: str, ratio: Callable[[Figures, Figures], float]
) -> None:
    for name in ("ours", BASELINE, "Shardy", "DTensor", "paper"):
        found = sorted(
            ratio(row, record)
            for row in rows
            if (record := row["runners"].get(name, {})).get("status") == "ok" and record.get(key)
        )
        if found:
            share = [(at + 0.5) / len(found) for at in range(len(found))]
            plt.plot(share, found, color=COLOURS[name], label=name)
    plt.axhline(1, color="black", linewidth=0.8)
    plain_log_axis()
    plt.xlim(0, 1)
    plt.xlabel("share of the pairs")
    plt.legend()


def plain_log_axis() -> None:
    """A logarithmic axis of ratios, written as 0.5 and 2 instead of powers of ten."""
    plt.yscale("log")
    axis = plt.gca().yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


def planning(figures: Figures) -> None:
    """Cold planning time against the number of devices."""
    for name in ("auto", "collectives", "direct"):
        for axes, style in ((3, "-"), (4, "--")):
            points = sorted(
                (row["devices"], row["cpu_us"][name]["median"])
                for row in figures["sizes"]
                if len(row["axes"]) == axes
            )
            plt.plot(
                *zip(*points, strict=True), style, marker="o", color=COLOURS[name],
                label=f"{name}, {axes} axes",
            )  # fmt: skip
    plt.xscale("log", base=2)
    plt.ylim(bottom=0)
    plt.xlabel("devices")
    plt.ylabel("CPU microseconds")
    plt.title("Planning time, cold, medians")
    plt.legend(fontsize=8)


def simulation(rows: Sequence[Figures]) -> None:
    """Simulated times at scale, ours and XLA's."""
    shown = [row for row in rows if row["xla_seconds"] is not None]
    kinds = dict.fromkeys((row["profile"], row["devices"]) for row in shown)
    markers = dict(zip(kinds, "os^v", strict=False))
    for (profile, devices), marker in markers.items():
        points = [
            (row["ours_seconds"] * 1e3, row["xla_seconds"] * 1e3)
            for row in shown
            if (row["profile"], row["devices"]) == (profile, devices)
        ]
        plt.scatter(*zip(*points, strict=True), marker=marker, label=f"{profile}, {devices:,}")
    ends = [t * 1e3 for row in shown for t in (row["ours_seconds"], row["xla_seconds"])]
    plt.plot([min(ends), max(ends)], [min(ends), max(ends)], color="black", linewidth=0.8)
    plt.xscale("log")
    plt.yscale("log")
    plt.xlabel("ours, simulated ms")
    plt.ylabel("XLA's plan, simulated ms")
    plt.title("Simulated completion times (nothing was run)")
    plt.legend()
