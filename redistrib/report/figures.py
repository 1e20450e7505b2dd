"""Figures as text: sizes, times, shapes, runs of device numbers."""

from __future__ import annotations


def format_bytes(size: int) -> str:
    """A size in the largest binary unit that it reaches, to four digits.

    >>> format_bytes(512), format_bytes(12 * 2**20), format_bytes(1500)
    ('512 B', '12 MiB', '1.465 KiB')
    """
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.4g} {unit}"


def format_seconds(seconds: float) -> str:
    """A time in s, ms, us or ns, to three digits.

    >>> format_seconds(0.0123), format_seconds(2e-6), format_seconds(0)
    ('12.3 ms', '2 us', '0 s')
    """
    for scale, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * scale >= 1 or seconds == 0:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def format_shape(shape: tuple[int, ...]) -> str:
    """A shape as `2048x1024`; `scalar` for rank 0."""
    return "x".join(map(str, shape)) or "scalar"


def format_positions(positions: list[int]) -> str:
    """Ascending numbers, runs of three or more shortened.

    >>> format_positions([0, 1, 2, 3, 6, 7])
    '0-3,6,7'
    """
    runs: list[list[int]] = []
    for position in positions:
        if runs and position == runs[-1][-1] + 1:
            runs[-1].append(position)
        else:
            runs.append([position])
    parts = [[f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run) for run in runs]
    return ",".join(part for run in parts for part in run)
