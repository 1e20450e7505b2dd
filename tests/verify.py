"""Everything that must hold of a pair, whatever the types: shared by tests and exhaustive runs."""

from __future__ import annotations

from collections import Counter

import numpy as np

import redistrib as rd
from redistrib.backends import simulator
from redistrib.types.refinement import refine


def verify(src: rd.ArrayType, dst: rd.ArrayType) -> Counter[str]:
    """Plan a pair by collectives and by direct, and check both plans in every way there is.

    Counts pairs, infeasible ones, and sums received and bound of aligned pairs.
    """
    aligned = refine(src, dst).aligned
    partial = bool(src.partial or dst.partial)
    counts: Counter[str] = Counter(pairs=1, aligned=aligned, partial=partial)
    for strategy in ("collectives", "direct"):
        try:
            plan = rd.plan(src, dst, strategy=strategy)
        except rd.InfeasibleError as error:
            # Only where no digits match may collectives need more than the larger end.
            assert strategy == "collectives"
            assert not aligned
            counts["infeasible"] += 1
            least = error.least_bytes
            verify_runs(rd.plan(src, dst, strategy=strategy, memory_limit=least))
            continue
        verify_plan(plan, aligned=aligned)
        counts[f"{strategy} plans"] += 1
    return counts


def verify_plan(plan: rd.Plan, *, aligned: bool) -> None:
    """Semantics on every device, the checker, the measured figures, and the bounds."""
    verify_runs(plan)
    measured = simulator.measure(plan)
    for name in ("received_bytes", "sent_bytes", "live_bytes", "peak_tile_bytes"):
        assert getattr(measured, name) == getattr(plan, name), name
    verify_bounds(plan, aligned=aligned)


def verify_runs(plan: rd.Plan) -> None:
    """Semantics on every device, and the checker."""
    verify_semantics(plan)
    rd.check(plan)


def verify_semantics(plan: rd.Plan) -> None:
    """Run on the simulator and compare every element on every device with what the type means."""
    src, dst = plan.src, plan.dst
    # Small integers, so that sums are exact in any order and in every dtype.
    array = (np.arange(src.size) % 7).reshape(src.shape).astype(src.numpy_dtype)
    tiles = simulator.run(plan, simulator.scatter(array, src))
    if dst.partial:
        assert np.array_equal(simulator.gather(tiles, dst), array)
        return
    for position, tile in enumerate(tiles):
        assert tile.dtype == array.dtype
        wanted = array[np.ix_(*dst.tile(position))] if src.shape else array
        assert tile.shape == wanted.shape
        assert (tile == wanted).all(), f"device {position}"


def verify_bounds(plan: rd.Plan, *, aligned: bool) -> None:
    """The memory and traffic bounds of docs/theory.md, sections 4 and 5."""
    ends = plan.src.tile_bytes, plan.dst.tile_bytes
    assert plan.peak_tile_bytes <= max(ends)
    assert plan.received_bytes >= plan.lower_bound_bytes
    if plan.src.partial or plan.dst.partial:
        return
    between = max((t.tile_bytes for t in plan.types[1:-1]), default=0)
    assert between <= (min if aligned else max)(ends)
    if plan.strategy == "direct":
        assert plan.received_bytes == plan.lower_bound_bytes
        assert not aligned or plan.sent_bytes <= plan.received_bytes
        return
    if plan.strategy == "auto":
        return
    names = [step.collective for step in plan.steps]
    assert "exchange" not in names
    if aligned:
        assert plan.received_bytes < 2 * plan.lower_bound_bytes or not plan.received_bytes
        assert names.count("collective_permute") <= 1
        assert plan.num_collectives <= 3
