"""The demo's table: one row per workload, ours and XLA's figures side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redistrib.backends.registry import BACKENDS
from redistrib.demo.workloads import Workload
from redistrib.synth.plan.data import Plan

Figures = dict[str, Any]

# Two lines per column: a group's name runs on over its columns.
HEADER = (
    ("", "workload"),
    ("", "devices"),
    ("received", "bound"),
    ("MiB", "jax"),
    ("", "mpi"),
    ("", "XLA"),
    ("temp", "jax"),
    ("MiB", "XLA"),
    ("buffer", "jax"),
    ("MiB", "XLA"),
    ("collectives", "jax"),
    ("", "XLA"),
    ("", "verified on"),
)
NAMES = tuple(backend.name for backend in BACKENDS)
LEFT = (0, len(HEADER) - 1)


def format_table(
    planned: Sequence[tuple[Workload, Plan]],
    rows: Sequence[Figures],
    baseline: dict[str, Figures],
    missing: dict[str, str],
) -> str:
    """The table with its notes, as text that ends in a newline."""
    by_key = {(row["workload"], row["backend"]): row for row in rows}
    cells = []
    for workload, found in planned:
        ours = {name: by_key.get((workload.name, name)) for name in NAMES}
        xla = baseline.get(workload.name)
        ends = (ours["jax"], xla)
        cells.append(
            (
                workload.name,
                str(found.src.mesh.num_devices),
                _mib(found.lower_bound_bytes),
                _figure(ours["jax"], "received_bytes"),
                _figure(ours["mpi"], "received_bytes"),
                _figure(xla, "received_bytes"),
                *(_figure(end, "temp_bytes") for end in ends),
                *(_figure(end, "largest_buffer_bytes") for end in ends),
                *(_figure(end, "num_collectives") for end in ends),
                " ".join(_verdict(name, row) for name, row in ours.items() if row is not None),
            )
        )
    lines = [_table(cells)]
    lines.append("received: by the device that receives most; bound: no plan can do with less")
    lines.append("jax, XLA: figures of the compiled programs; -: no PartitionSpec, or not run")
    lines += [f"{name}: {reason}" for name, reason in missing.items()]
    lines += ["", "workloads"]
    for workload, found in planned:
        lines.append(f"  {workload.name}: {workload.what}")
        lines.append(f"    {found.src} -> {found.dst} on {workload.mesh}")
        lines.append(f"    {workload.source}")
    failed = [row for row in rows if not row["verified"]]
    for row in failed:
        why = row["error"] or "a device holds wrong data"
        lines.append(f"FAILED: {row['workload']} on {row['backend']}: {why}")
    if not failed:
        tiles = sum(
            found.src.mesh.num_devices
            for workload, found in planned
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
        return "crash" if "crash" in row["error"] else "failed"
    value = row.get(key)
    if value is None:
        return "-"
    return _mib(value) if key.endswith("bytes") else str(value)


def _verdict(name: str, row: Figures) -> str:
    return name if row["verified"] else f"{name}: NO"


def _table(cells: Sequence[Sequence[str]]) -> str:
    """As wide as it needs to be: a table that is cut or folded cannot be read."""
    rows = [*zip(*HEADER, strict=True), *cells]
    widths = [max(len(text) for text in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padded = [
            text.ljust(width) if index in LEFT else text.rjust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    lines.insert(2, "-" * max(map(len, lines)))
    return "\n".join(lines)
