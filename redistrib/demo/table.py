"""The demo's table: one row per workload, ours and XLA's figures side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from redistrib.backends.registry import BACKENDS
from redistrib.demo.workloads import Workload
from redistrib.synth.plan.data import Plan

Figures = dict[str, Any]

NAMES = tuple(backend.name for backend in BACKENDS)
ENDS = ("jax", "XLA")
BYTES = {
    "": ("workload",),
    "received MiB": ("bound", "jax", "mpi", "XLA"),
    "temp MiB": ENDS,
    "buffer MiB": ENDS,
}
"""Columns, by the names of their groups."""
COUNTS = {"": ("workload", "devices"), "collectives": ENDS, "right on": NAMES}
"""In a table of their own: one that is wider than the 80 columns of a terminal cannot be read."""


def format_table(
    planned: Sequence[tuple[Workload, Plan]],
    rows: Sequence[Figures],
    baseline: dict[str, Figures],
    missing: dict[str, str],
) -> str:
    """The table with its notes, as text that ends in a newline."""
    by_key = {(row["workload"], row["backend"]): row for row in rows}
    sizes, counts = [], []
    for workload, plan in planned:
        ours = {name: by_key.get((workload.name, name)) for name in NAMES}
        xla = baseline.get(workload.name)
        ends = (ours["jax"], xla)
        sizes.append(
            (
                workload.name,
                _mib(plan.lower_bound_bytes),
                *(_figure(row, "received_bytes") for row in (ours["jax"], ours["mpi"], xla)),
                *(_figure(end, "temp_bytes") for end in ends),
                *(_figure(end, "largest_buffer_bytes") for end in ends),
            )
        )
        counts.append(
            (
                workload.name,
                str(plan.src.mesh.num_devices),
                *(_figure(end, "num_collectives") for end in ends),
                *(_verdict(row) for row in ours.values()),
            )
        )
    lines = [_table(BYTES, sizes), "", _table(COUNTS, counts)]
    lines.append("received: by the device that receives most; bound: no plan can do with less")
    lines.append("jax, XLA: figures of the compiled programs; -: no PartitionSpec, or not run")
    lines += [f"{name}: {reason}" for name, reason in missing.items()]
    lines += ["", "workloads"]
    for workload, plan in planned:
        lines.append(f"  {workload.name}: {workload.summary}")
        lines.append(f"    {plan.src} -> {plan.dst} on {workload.mesh}")
        lines.append(f"    {workload.source}")
    failed = [row for row in rows if not row["verified"]]
    for row in failed:
        why = row["error"] or "a device holds wrong data"
        lines.append(f"FAILED: {row['workload']} on {row['backend']}: {why}")
    if not failed:
        tiles = sum(
            plan.src.mesh.num_devices
            for workload, plan in planned
            for name in NAMES
            if (workload.name, name) in by_key
        )
        lines.append(f"every tile is right, bit for bit: {tiles} tiles of {len(rows)} runs")
    return "\n".join(lines) + "\n"


def _mib(size: float) -> str:
    return f"{size / 2**20:.2f}"


def _figure(row: Figures | None, key: str) -> str:
    if row is None:
        return "-"
    if row.get("error"):
        return "crash" if "crash" in row["error"] else "fail"
    value = row.get(key)
    if value is None:
        return "-"
    return _mib(value) if key.endswith("bytes") else str(value)


def _verdict(row: Figures | None) -> str:
    return "-" if row is None else "yes" if row["verified"] else "NO"


def _table(groups: Mapping[str, Sequence[str]], cells: Sequence[Sequence[str]]) -> str:
    """Rows below two lines of names; that of a group runs on over its columns."""
    rows = [[name for names in groups.values() for name in names], *cells]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    parts: list[list[str]] = [[] for _ in range(len(rows) + 1)]
    start = 0
    for group, names in groups.items():
        held = slice(start, start + len(names))
        span = sum(widths[held]) + len(names) - 1
        widths[start] += max(0, len(group) - span)
        parts[0].append(group.center(max(len(group), span)))
        for part, row in zip(parts[1:], rows, strict=True):
            texts = zip(row[held], widths[held], strict=True)
            part.append(" ".join(t.rjust(n) if group else t.ljust(n) for t, n in texts))
        start += len(names)
    lines = ["  ".join(part).rstrip() for part in parts]
    lines.insert(2, "-" * max(map(len, lines)))
    return "\n".join(lines)
