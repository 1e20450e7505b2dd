"""A profile from measured moves: links by level, and the efficiency of each collective.

A backend times random moves of a mesh, of several sizes, their plans taking turns so that what else
the machine does touches all of them alike. Prices are linear in what a profile states, so it is
found by least squares: of relative errors, so that small moves count as much as large ones.

Two axes of a machine are told apart only if one is slower, so x=2,y=4 on one node gives one link.
From what a profile says of some moves the same profile is found again:

>>> machine = Profile("m", Link(1e-5, 1e9), efficiency=(("all_to_all", 0.5),), exchange="call")
>>> plans = moves(Mesh(x=2, y=4), "call", tiles=(1 << 12, 1 << 18), count=40)
>>> profile = fitted(plans, [plan.seconds_under(machine) for plan in plans], "call", "fitted")
>>> profile.link, profile.levels, dict(profile.efficiency)["all_to_all"]
(Link(latency=1e-05, bandwidth=1000000000.0), (), 0.5)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import isqrt, prod
from random import Random
from statistics import median

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import BackendError
from redistrib.synth.plan.data import Plan
from redistrib.synth.plan.links import Level, Link
from redistrib.synth.plan.profile import COMMUNICATING, Execution, Profile
from redistrib.synth.planner.choose import plan
from redistrib.synth.planner.problem import Strategy
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh

TILES = tuple(1 << power for power in (13, 16, 19, 22))
"""Bytes of the larger tile of a move: 8 KiB to 4 MiB."""
MOVES = 64
ROUNDS = 15
APART = 2
"""A level is another one only if its link is so many times slower."""
VISIBLE = 0.01
"""What a latency, or the bytes of a collective, must have of the time of some move to be seen."""
NEAR = 0.02
"""Relative errors below this are as good as none."""
Times = Sequence[Sequence[float]]
"""Of each plan the seconds that it took, one for each round."""


def moves(
    mesh: Mesh,
    exchange: Execution,
    tiles: Sequence[int] = TILES,
    count: int = MOVES,
    seed: int = 0,
) -> list[Plan]:
    """Plans of random moves of f32 matrices that communicate; a fourth of them are exchanges.

    Raises BackendError where there is nothing to measure: one device, or ids out of order, since
    the levels of a profile are groups of consecutive ids.
    """
    if mesh.num_devices < 2:
        raise BackendError(f"a link is measured between two devices or more; got {mesh}")
    if mesh.devices is not None:
        raise BackendError(f"a machine is measured with its devices in order; got {mesh!r}")
    random = Random(seed)  # noqa: S311 - the same moves on all ranks
    profile = Profile("any", Link(1e-6, 1e11), exchange=exchange)
    plans: list[Plan] = []
    while len(plans) < count:
        ends = _ends(mesh, random, tiles[len(plans) % len(tiles)])
        strategy: Strategy = "direct" if len(plans) // len(tiles) % 4 == 3 else "auto"
        planned = plan(*ends, strategy=strategy, profile=profile)
        if planned.num_collectives:
            plans.append(planned)
    return plans


def _ends(mesh: Mesh, random: Random, tile: int) -> list[ArrayType]:
    """Two layouts of a square matrix whose larger tile has about so many bytes."""
    layouts: list[tuple[list[list[str]], list[str]]] = []
    partial = random.random() < 0.25
    for source in (True, False):
        dims: list[list[str]] = [[], []]
        summed: list[str] = []
        for axis, size in random.sample(mesh.axes, len(mesh.axes)):
            half = next((k for k in range(2, isqrt(size) + 1) if size % k == 0), size)
            parts = [f"{axis}:(1){half}", f"{axis}:({half}){size // half}"]
            uncut = half == size or random.random() < 0.6
            for part in [axis] if uncut else parts:
                # A fifth of the digits own nothing: their devices are replicas, or addends.
                if random.random() < 0.8:
                    random.choice(dims).append(part)
                elif partial and source:
                    summed.append(part)
        layouts.append((dims, summed))
    if partial and random.random() < 0.5:
        layouts[1] = (layouts[0][0], [])  # all addends are summed where they are
    least = [ArrayType(mesh, "f32", [mesh.num_devices] * 2, *layout) for layout in layouts]
    unit = max(t.tile_bytes for t in least)
    side = mesh.num_devices * max(1, round((tile / unit) ** 0.5))
    return [ArrayType(mesh, "f32", [side] * 2, *layout) for layout in layouts]


def timed(runs: Sequence[Callable[[], float]], rounds: int = ROUNDS) -> Times:
    """The seconds of each run in each round, in another order each time; the first is to warm."""
    random = Random(0)  # noqa: S311 - the same order on all ranks
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    for _ in range(rounds):
        for number in random.sample(range(len(runs)), len(runs)):
            times[number].append(runs[number]())
    return times


def usual(times: Sequence[float]) -> float:
    """The lower quartile: what else the machine does only adds time."""
    return float(np.quantile(times, 0.25))


def calibrated(plans: Sequence[Plan], times: Times, exchange: Execution, name: str) -> Profile:
    """The profile of measured plans; `source` says how far it can be trusted.

    Profiles of every other round say how much the numbers spread, and those of half of the moves
    how near they price the rest. Raises BackendError where times do not grow with the bytes.
    """
    seconds = [usual(rounds) for rounds in times]
    profile = fitted(plans, seconds, exchange, name)
    halves = [
        fitted(plans, [usual(rounds[start::2]) for rounds in times], exchange, name).link
        for start in (0, 1)
    ]
    errors = []
    order = Random(0).sample(range(len(plans)), len(plans))  # noqa: S311 - sizes come in turn
    for start in (0, 1):
        measured, held_out = order[start::2], order[1 - start :: 2]
        half = fitted([plans[n] for n in measured], [seconds[n] for n in measured], exchange, name)
        errors += [error_of(plans[n].seconds_under(half), seconds[n]) for n in held_out]
    link, largest = profile.link, max(max(p.src.tile_bytes, p.dst.tile_bytes) for p in plans)
    lines = (
        f"{len(plans)} moves of tiles up to {largest >> 10} KiB, {len(times[0])} rounds in turns, "
        "lower quartiles.",
        "By every other round: "
        + " and ".join(f"{half.latency:.3g} s, {half.bandwidth:.3g} bytes/s" for half in halves)
        + ".",
        f"At {link.latency * link.bandwidth / 1024:.0f} KiB half of the bandwidth is reached.",
        f"By half of the moves: {sum(e <= 1.5 for e in errors) / len(errors):.0%} of the rest took "
        f"within 1.5 times their price, half within {median(errors):.2f} times.",
        profile.source,
    )
    return replace(profile, source="\n".join(lines).rstrip())


def error_of(price: float, seconds: float) -> float:
    """How many times too high or too low a price is."""
    return max(price / seconds, seconds / price)


def fitted(
    plans: Sequence[Plan], seconds: Sequence[float], exchange: Execution, name: str
) -> Profile:
    """The profile whose prices of these plans are nearest to their seconds, relatively.

    `source` names the collectives that were not seen; these take what the fastest takes.
    """
    mesh = plans[0].src.mesh
    sizes = [size for _, size in mesh.axes]
    groups = sorted({prod(sizes[n:]) for n, size in enumerate(sizes) if size > 1})
    while True:
        links, efficiency = _fit(plans, seconds, exchange, groups)
        same = [n for n, (a, b) in enumerate(pairwise(links)) if not _slower(a, b)]
        if not same:
            break
        del groups[same[0]]
    levels = tuple(Level(k, link) for k, link in zip(groups[:-1], links[:-1], strict=True))
    missing = ", ".join(known for known in COMMUNICATING if known not in efficiency)
    slower = tuple((known, part) for known, part in efficiency.items() if part < 1)
    source = f"Not measured: {missing}." if missing else ""
    return Profile(name, links[-1], (), exchange, levels, slower, source)


def _slower(inner: Link, outer: Link) -> bool:
    ratios = outer.latency / max(inner.latency, 1e-12), inner.bandwidth / outer.bandwidth
    return max(ratios) >= APART and min(ratios) >= 1 / APART


def _fit(
    plans: Sequence[Plan], seconds: Sequence[float], exchange: Execution, groups: Sequence[int]
) -> tuple[list[Link], dict[str, float]]:
    """The link of each level, and the efficiencies: by turns, as their product is in the price."""
    names = sorted({term.collective for plan in plans for term in plan.terms})
    rounds = np.zeros((len(plans), len(groups)))
    received = np.zeros((len(plans), len(groups), len(names)))
    for row, planned in enumerate(plans):
        for term in planned.terms:
            outer = max(_group(term.mesh, digit.axis) for digit in term.axes)
            level = next(n for n, group in enumerate(groups) if group >= outer)
            once = exchange == "call" and term.collective == "exchange"
            rounds[row, level] += 1 if once else term.latencies
            received[row, level, names.index(term.collective)] += term.timed_bytes
    times = np.array(seconds)
    slower = np.ones(len(names))  # a collective's seconds a byte, over those of the fastest
    for _ in range(20 if len(groups) > 1 else 1):
        _, per_byte = _least(rounds, received @ slower, times)
        per_byte = np.where(per_byte > 0, per_byte, per_byte.max())
        latency, slower = _least(rounds, np.einsum("plc,l->pc", received, per_byte), times)
        if not slower.any() or not per_byte.any():
            raise BackendError(
                f"the times do not grow with the bytes of {len(plans)} moves: measure larger tiles"
            )
        seen, least = slower > 0, slower[slower > 0].min()
        per_byte, slower = per_byte * least, np.where(seen, slower / least, 1)
    per_byte, latency = np.maximum.accumulate(per_byte), np.maximum.accumulate(latency)
    links = [
        Link(float(f"{a:.4g}"), float(f"{1 / b:.4g}"))
        for a, b in zip(latency, per_byte, strict=True)
    ]
    measured = zip(names, slower, seen, strict=True)
    return links, {name: float(f"{1 / k:.3g}") for name, k, known in measured if known}


def _group(mesh: Mesh, axis: str) -> int:
    """The consecutive devices that hold every line along an axis."""
    names = [name for name, _ in mesh.axes]
    return prod(size for _, size in mesh.axes[names.index(axis) :])


def _least(
    first: NDArray[np.float64], second: NDArray[np.float64], times: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The coefficients of both groups of columns, none negative, with the least relative errors.

    The logarithms, so that half of a time is as wrong as twice as much, rather than their squares:
    moves that the machine disturbed count less.
    """
    columns = np.concatenate([first, second], axis=1) / times[:, None]
    scale = np.where(columns.any(axis=0), columns.max(axis=0), 1.0)
    coefficients, weights = np.zeros(columns.shape[1]), np.ones(len(times))
    for _ in range(20):
        used = np.array(columns.any(axis=0))
        while used.any():
            matrix = columns[:, used] / scale[used] * weights[:, None]
            solved = np.linalg.lstsq(matrix, weights, rcond=None)[0]
            coefficients = np.zeros(columns.shape[1])
            coefficients[used] = solved / scale[used]
            if (solved >= VISIBLE).all():
                break
            used[np.flatnonzero(used)[solved.argmin()]] = False
            coefficients[~used] = 0
        # The slope of |log p| is 1/p on either side of 1, that of these squares w (p - 1).
        prices = np.maximum(columns @ coefficients, NEAR)
        weights = 1 / np.sqrt(prices * np.maximum(np.abs(prices - 1), NEAR))
    return coefficients[: first.shape[1]], coefficients[first.shape[1] :]


def to_toml(profile: Profile, comment: str) -> str:
    """The text of a profile as `Profile.load` reads it."""
    lines = [f"# {line}" for line in comment.splitlines()]
    lines += [f'name = "{profile.name}"', f'exchange = "{profile.exchange}"', *_link(profile.link)]
    lines.append(f'source = """\n{profile.source}"""')
    for level in profile.levels:
        lines += ["", "[[levels]]", f"devices = {level.devices}", *_link(level.link)]
    if profile.efficiency:
        lines += ["", "[efficiency]", *(f"{name} = {part}" for name, part in profile.efficiency)]
    return "\n".join(lines) + "\n"


def _link(link: Link) -> list[str]:
    return [f"latency = {link.latency!r}  # s", f"bandwidth = {link.bandwidth!r}  # bytes/s"]
