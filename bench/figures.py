"""The figures of a run as SVG, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("SVG")
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from bench.harness import BASELINE
from bench.planning_page import SCALED, SHARDY
from bench.summary import noise

Figures = dict[str, Any]

RUNNERS = ("ours", BASELINE, "Shardy", "DTensor", "paper")
COLOURS = {
    "ours": "#0b5fa5",
    BASELINE: "#c23b22",
    "Shardy": "#e19b2c",
    "DTensor": "#7a4ea3",
    "paper": "#3a9d5d",
    "collectives": "#0b5fa5",
    "auto": "#111111",
    "direct": "#888888",
    "price": "#3a9d5d",
}
WIDE, TALL = (8, 4.2), (8, 7.5)


def draw(results: Figures, directory: Path) -> list[str]:
    """Write every figure that there is data for; the names of the files."""
    drawn: list[tuple[str, Callable[[Any], None], Any, tuple[float, float]]] = [
        ("speed-up", speed_up, results["workloads"], WIDE),
        ("memory", memory, results["workloads"], WIDE),
        ("volume", volume, results["workloads"], WIDE),
        ("planning", planning, results.get("planning"), WIDE),
        ("simulation", simulation, results.get("scale"), TALL),
    ]
    directory.mkdir(parents=True, exist_ok=True)
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "redistrib"}
    names = []
    for name, plot, data, size in drawn:
        if not data:
            continue
        plt.figure(figsize=size, dpi=110, layout="constrained")
        plot(data)
        file = f"benchmarks-{name}.svg"
        plt.savefig(directory / file, metadata={"Date": None})
        plt.close()
        names.append(file)
    return names


def speed_up(rows: Sequence[Figures]) -> None:
    """Speed-ups over XLA, sorted; each with the quartiles of its rounds, and XLA's own noise."""
    for name in RUNNERS:
        speeds = sorted(
            [record["speed_up"][key] for key in ("median", "q1", "q3")]
            for row in rows
            if "speed_up" in (record := row["runners"].get(name, {}))
        )
        if speeds and name != BASELINE:
            share = [(n + 0.5) / len(speeds) for n in range(len(speeds))]
            mid, low, high = zip(*speeds, strict=True)
            plt.plot(share, mid, color=COLOURS[name], label=f"{name} ({len(speeds)} pairs)")
            plt.fill_between(share, low, high, color=COLOURS[name], alpha=0.15, linewidth=0)
    factor = noise(rows)
    plt.axhline(1, color=COLOURS[BASELINE], linewidth=1, label=f"{BASELINE} itself")
    label = f"95% of {BASELINE} over itself"
    plt.axhspan(1 / factor, factor, color=COLOURS[BASELINE], alpha=0.1, linewidth=0, label=label)
    plain_log_axis(plt.gca().yaxis)
    plt.xlim(0, 1)
    plt.xlabel("share of the pairs with a smaller speed-up")
    plt.ylabel("XLA's time / runner's time")
    plt.title("Speed-up over XLA's resharding, virtual devices on CPU")
    plt.legend(fontsize=8)


def memory(rows: Sequence[Figures]) -> None:
    """The largest array in the program over the larger tile: shares of the pairs."""

    def over(row: Figures, record: Figures) -> float:
        tile: int = max(row["source_tile_bytes"], row["target_tile_bytes"])
        return float(record["largest_buffer_bytes"] / tile)

    _shares(rows, "largest_buffer_bytes", over, (1, 2, 4, 8), "at most the larger tile")
    plt.title("Memory: largest array in the program / larger of the two tiles")


def volume(rows: Sequence[Figures]) -> None:
    """Received bytes over the bound: shares of the pairs."""
    _shares(
        [row for row in rows if row["bound_bytes"]],
        "received_bytes",
        lambda row, record: float(record["received_bytes"] / row["bound_bytes"]),
        (1, 1.25, 1.5, 2, 4),
        "the bound itself",
    )
    plt.title("Volume: bytes that the worst device receives / lower bound")


def _shares(
    rows: Sequence[Figures],
    key: str,
    ratio: Callable[[Figures, Figures], float],
    limits: Sequence[float],
    least: str,
) -> None:
    """A bar per runner, divided at the limits of the ratio."""
    labels = [least, *(f"up to {limit:g}x" for limit in limits[1:]), f"above {limits[-1]:g}x"]
    shades = [plt.get_cmap("YlOrRd")(0.12 + 0.83 * n / len(limits)) for n in range(len(labels))]
    names: list[str] = []
    for name in RUNNERS:
        ratios = [
            ratio(row, record)
            for row in rows
            if (record := row["runners"].get(name, {})).get("status") == "ok" and record.get(key)
        ]
        if not ratios:
            continue
        place = [next((n for n, x in enumerate(limits) if value <= x), -1) for value in ratios]
        start = 0.0
        for shade in range(len(labels)):
            # The last label is what no limit holds.
            count = place.count(shade if shade < len(limits) else -1)
            share = 100 * count / len(ratios)
            shown = labels[shade] if not names else None
            plt.barh(len(names), share, left=start, color=shades[shade], label=shown)
            if share >= 4:
                dark = shade > len(labels) * 0.6
                plt.annotate(
                    f"{share:.0f}%", (start + share / 2, len(names)), ha="center", va="center",
                    fontsize=8, color="white" if dark else "black",
                )  # fmt: skip
            start += share
        names.append(f"{name}\n{len(ratios)} pairs, worst {max(ratios):.3g}x")
    plt.yticks(range(len(names)), names, fontsize=8)
    plt.gca().invert_yaxis()
    plt.xlim(0, 100)
    plt.xlabel("% of the pairs that the runner got right")
    plt.legend(fontsize=8, ncols=len(labels), loc="lower center", bbox_to_anchor=(0.4, -0.32))


def plain_log_axis(axis: Any) -> None:
    """A logarithmic axis, written as 0.5 and 2 instead of powers of ten."""
    set_scale = axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale
    set_scale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


def planning(figures: Figures) -> None:
    """Cold planning time against the number of devices, and against the number of axes."""
    sizes_plot, axes_plot = plt.gcf().subplots(1, 2)
    for name in SCALED:
        for axes, style in ((3, "-"), (4, "--")):
            points = sorted(
                (row["devices"], row["cpu_us"][name]["median"])
                for row in figures["sizes"]
                if len(row["axes"]) == axes
            )
            sizes_plot.plot(
                *zip(*points, strict=True), style, marker="o", ms=4, color=COLOURS[name]
            )
    sizes_plot.set_xscale("log", base=2)
    sizes_plot.set_ylim(bottom=0)
    sizes_plot.set_xlabel("devices (solid: 3 axes, dashed: 4 axes)")
    sizes_plot.set_ylabel("CPU microseconds, cold, median over pairs")
    sizes_plot.set_title("More devices, same digits", fontsize=10)
    rows = [row for row in figures["axes"] if set(row["mesh"]) == {2}]
    for name in (*SCALED, SHARDY):
        points = [(len(row["mesh"]), row["cpu_us"][name]["median"]) for row in rows]
        axes_plot.plot(
            *zip(*points, strict=True), marker="o", ms=4, color=COLOURS[name], label=name
        )
    plain_log_axis(axes_plot.yaxis)
    axes_plot.set_xlabel("axes, all of size 2")
    axes_plot.set_title("More axes", fontsize=10)
    plt.figlegend(loc="outside lower center", ncols=5, fontsize=8)
    plt.suptitle("Time of one plan, and of one price", fontsize=12)


def simulation(rows: Sequence[Figures]) -> None:
    """Simulated times at scale: per redistribution and size, ours joined with XLA's."""
    shown = [row for row in rows if row["xla_seconds"] is not None]
    kinds = list(dict.fromkeys((row["family"], row["devices"]) for row in shown))
    profiles = list(dict.fromkeys(row["profile"] for row in shown))
    colours = dict(zip(profiles, ("#0b5fa5", "#e19b2c", "#3a9d5d"), strict=False))
    for row in shown:
        y = kinds.index((row["family"], row["devices"])) + 0.3 * profiles.index(row["profile"])
        ends = [row["ours_seconds"] * 1e3, row["xla_seconds"] * 1e3]
        colour = colours[row["profile"]]
        plt.plot(ends, [y, y], color=colour, linewidth=1)
        plt.plot(ends[0], y, "o", color=colour, ms=5)
        plt.plot(ends[1], y, "x", color=colour, ms=6)
    plt.xscale("log")
    names = [f"{family}, {devices:,}" for family, devices in kinds]
    plt.yticks([n + 0.15 for n in range(len(kinds))], names, fontsize=8)
    plt.gca().invert_yaxis()
    plt.grid(axis="x", linewidth=0.4)
    plt.xlabel("simulated milliseconds")
    plt.title("Simulated completion times: nothing was run")
    handles = [Line2D([], [], color=colours[p], label=f"links of {p}") for p in profiles]
    handles += [Line2D([], [], color="black", marker="o", linestyle="", label="ours")]
    handles += [Line2D([], [], color="black", marker="x", linestyle="", label="XLA's plan")]
    plt.figlegend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
