"""Prices under a profile measured here, beside the times of other moves.

    python -m bench.calibrated jax 16
    mpiexec -n 8 python -m bench.calibrated mpi 8
    python -m bench.calibrated torch 4      (where torch is)

40 random moves of matrices of three sizes take turns with those that `redistrib calibrate` times.
The profile of the latter prices the former: the correlation of ranks (Spearman), and how many took
within 1.5 times their price. Times are lower quartiles of the rounds, as in `calibrate`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from math import prod
from random import Random
from statistics import median

import redistrib as rd
from redistrib.backends.calibration import calibrated, error_of, moves, timed, to_toml, usual
from redistrib.synth.plan.links import Link
from redistrib.synth.plan.profile import DEFAULT_PROFILE, Execution, Profile

SIDES = {"rounds": (256, 1024, 2048), "call": (256, 2048, 4096)}
"""Of the matrices, by how an exchange runs: a call takes longer before bytes count."""
MESHES = {4: {"x": 2, "y": 2}, 8: {"x": 2, "y": 4}, 16: {"x": 2, "y": 2, "z": 4}}
COUNT = 40
Prepare = Callable[[list[rd.Plan]], AbstractContextManager[list[Callable[[], float]]]]
"""Makes plans ready; a run gives the seconds that it took."""


def held_out(mesh: rd.Mesh, exchange: Execution, seed: int = 5) -> list[rd.Plan]:
    """Plans of random moves between layouts of whole axes that communicate, sizes in turn."""
    random, profile = Random(seed), Profile("any", Link(1e-6, 1e11), exchange=exchange)

    def layout(side: int) -> rd.ArrayType:
        dims: list[list[str]] = [[], []]
        for axis in random.sample([name for name, _ in mesh.axes], len(mesh.axes)):
            if random.random() < 0.8:
                random.choice(dims).append(axis)
        return rd.ArrayType(mesh, "f32", [side, side], dims)

    plans: list[rd.Plan] = []
    while len(plans) < COUNT:
        side = SIDES[exchange][len(plans) % 3]
        plan = rd.plan(layout(side), layout(side), profile=profile)
        if plan.num_collectives:
            plans.append(plan)
    return plans


def spearman(a: list[float], b: list[float]) -> float:
    """The correlation of ranks; of equal values the mean of their ranks."""

    def ranks(values: list[float]) -> list[float]:
        return [sum(w < v for w in values) + sum(w == v for w in values) / 2 for v in values]

    ra, rb = ranks(a), ranks(b)
    mean_a, mean_b = sum(ra) / len(ra), sum(rb) / len(rb)
    of = sum((x - mean_a) * (y - mean_b) for x, y in zip(ra, rb, strict=True))
    return float(
        of / prod(sum((x - m) ** 2 for x in r) for r, m in ((ra, mean_a), (rb, mean_b))) ** 0.5
    )


def compared(profile: Profile, plans: list[rd.Plan], seconds: list[float]) -> str:
    """The line that is printed of a profile."""
    prices = [plan.seconds_under(profile) for plan in plans]
    errors = [error_of(price, took) for price, took in zip(prices, seconds, strict=True)]
    near = sum(error <= 1.5 for error in errors) / len(errors)
    return (
        f"{profile.name}: Spearman {spearman(prices, seconds):.2f}, within 1.5 times {near:.0%}, "
        f"median error {median(errors):.2f}, largest {max(errors):.1f}"
    )


def report(mesh: rd.Mesh, exchange: Execution, prepare: Prepare) -> str:
    """A profile, and how near its prices are to the times of other moves."""
    plans, others = moves(mesh, exchange), held_out(mesh, exchange)
    with prepare([*plans, *others]) as runs:
        times = timed(runs)
    profile = calibrated(plans, times[: len(plans)], exchange, "calibrated")
    seconds = [usual(samples) for samples in times[len(plans) :]]
    load = os.getloadavg()[0]
    lines = [to_toml(profile, f"{mesh}, {len(others)} other moves, load {load:.1f}")]
    lines += [compared(chosen, others, seconds) for chosen in (DEFAULT_PROFILE, profile)]
    return "\n".join(lines)


def of_jax(mesh: rd.Mesh) -> None:
    """On virtual devices of the CPU, or the first that there are."""
    from redistrib.backends.jax.calibration import EXCHANGE, prepared

    print(report(mesh, EXCHANGE, lambda plans: nullcontext(prepared(plans))))


def of_mpi(mesh: rd.Mesh) -> None:
    """On the ranks of this job."""
    from mpi4py import MPI

    from redistrib.backends.mpi.calibration import EXCHANGE, prepared

    text = report(mesh, EXCHANGE, lambda plans: prepared(plans, MPI.COMM_WORLD))
    if MPI.COMM_WORLD.rank == 0:
        print(text)


def of_torch(mesh: rd.Mesh) -> None:
    """On processes forked for it."""
    from redistrib.backends.torch.arrays import forked
    from redistrib.backends.torch.calibration import EXCHANGE, prepared

    def work(rank: int) -> None:
        text = report(mesh, EXCHANGE, lambda plans: nullcontext(prepared(plans)))
        if rank == 0:
            print(text, flush=True)

    forked(mesh.num_devices, work)


WAYS = {"jax": of_jax, "mpi": of_mpi, "torch": of_torch}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("backend", choices=WAYS)
    parser.add_argument("devices", type=int, choices=MESHES)
    chosen = parser.parse_args()
    WAYS[chosen.backend](rd.Mesh(MESHES[chosen.devices]))


if __name__ == "__main__":
    main()
