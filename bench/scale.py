"""Simulated completion times on thousands of devices, ours beside XLA's plan. Nothing is run here.

XLA's CPU client has at most 2,047 devices, so its plan is read from the HLO of smaller meshes with
the same structure: one axis size, n, grows, everything else stays. XLA must take the same
collectives over the same axes at two sizes; then the bytes of each are c * n^p with a whole p, and
its group c * n^q. At a third size the prediction is compared with what XLA compiles. Where any of
this fails, the row says so and has no figure.

Both plans are priced with the same links and rules, alpha-beta per axis, a collective over several
links also cut into one for each, whichever is cheaper: local copies are free.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

import redistrib as rd
from bench.harness import Limits, LostError, Worker
from bench.workloads import Workload
from redistrib.synth.plan.collectives import AllGather, AllToAll, Collective, Move, ReduceScatter
from redistrib.synth.plan.profile import Profile, find_profile
from redistrib.synth.planner.by_link import add_steps
from redistrib.types.digits import DeviceDigit, IndexDigit, cut

Figures = dict[str, Any]
Collectives = list[Figures]


@dataclass(frozen=True, slots=True)
class Family:
    """A redistribution on meshes that differ in n only.

    `mesh` is a text with {n}; XLA is read at the two `sizes`, compared at `check`, and both are
    simulated at `targets`.
    """

    name: str
    mesh: str
    src: str
    dst: str
    sizes: tuple[int, int]
    check: int
    targets: tuple[int, ...]

    def at(self, n: int) -> tuple[rd.ArrayType, rd.ArrayType]:
        """The two types at one size."""
        mesh = rd.Mesh.parse(self.mesh.format(n=n))
        return rd.ArrayType.parse(self.src, mesh), rd.ArrayType.parse(self.dst, mesh)


GRID = ("x={n},y={n}", (4, 8), 16, (64, 256))
# Not n = 8: XLA has other rules where axes are equal, and the targets are not.
POD = ("data={n},fsdp=8,model=8", (2, 4), 16, (64, 1024))
CUBE = ("a={n},b={n},c={n},d={n}", (2, 4), 6, (8, 16))


def _family(name: str, structure: Any, src: str, dst: str) -> Family:
    mesh, sizes, check, targets = structure
    return Family(name, mesh, src, dst, sizes, check, targets)


FAMILIES = (
    _family("rows over x to columns over y", GRID, "f32[65536{x}, 65536]", "f32[65536, 65536{y}]"),
    _family("block transpose", GRID, "f32[65536{x}, 65536{y}]", "f32[65536{y}, 65536{x}]"),
    _family(
        "matrices to a batch",
        GRID,
        "c64[65536, 1024{x}, 1024{y}]",
        "c64[65536{x,y}, 1024, 1024]",
    ),
    _family(
        "FFT pencils x to z",
        GRID,
        "c64[4096{x}, 4096{y}, 4096]",
        "c64[4096, 4096{x}, 4096{y}]",
    ),
    _family(
        "FSDP to tensor parallel",
        POD,
        "u16[65536{data,fsdp}, 65536{model}]",
        "u16[65536, 65536{model}]",
    ),
    _family(
        "weight sync to inference",
        POD,
        "u16[65536{data,fsdp}, 65536{model}]",
        "u16[65536, 65536{model,fsdp}]",
    ),
    _family(
        "MoE dispatch",
        POD,
        "u16[1024{fsdp}, 8192{data,model}, 2048]",
        "u16[1024{fsdp,model}, 8192{data}, 2048]",
    ),
    _family(
        "four axes rotate",
        CUBE,
        "f32[144{a}, 144{b}, 144{c}, 144{d}]",
        "f32[144{d}, 144{a}, 144{b}, 144{c}]",
    ),
    _family(
        "tensor to a matrix",
        CUBE,
        "f32[2304{a}, 2304{b}, 144{c}, 144{d}]",
        "f32[2304{a,c}, 2304{b,d}, 144, 144]",
    ),
)

PROFILES = ("tpu-v5p", "dgx-h100")

LIMITS = Limits(memory_bytes=128 << 30)
"""Programs are only compiled; the stacks of the threads of a thousand devices count as data."""


def simulate(families: Sequence[Family], checked: bool, limits: Limits = LIMITS) -> list[Figures]:
    """A row per family, size and profile; without `checked` no third size is compiled."""
    rows = []
    for family in families:
        sizes = [*family.sizes, *([family.check] if checked else [])]
        try:
            compiled = [compile_xla(family, n, limits) for n in sizes]
            fit = fitted(compiled[0], compiled[1], *family.sizes)
            note = "not checked"
            if checked:
                same = predicted(fit, family.check) == compiled[2]
                if not same:
                    raise LookupError(f"XLA takes another plan at n = {family.check}")
                note = f"as compiled at n = {family.check}"
        except LookupError as error:
            fit, note = None, str(error)
        rows += [_row(family, n, p, fit, note) for n in family.targets for p in PROFILES]
    return rows


def _row(
    family: Family,
    n: int,
    profile_name: str,
    fit: Collectives | None,
    note: str,
) -> Figures:
    src, dst = family.at(n)
    profile = find_profile(profile_name).on(src.mesh)
    start = time.perf_counter()
    plan = rd.plan(src, dst, profile=profile)
    elapsed = time.perf_counter() - start
    row: Figures = {
        "family": family.name,
        "mesh": str(src.mesh),
        "devices": src.mesh.num_devices,
        "src": family.src,
        "dst": family.dst,
        "profile": profile_name,
        "bound_bytes": plan.lower_bound_bytes,
        "ours_seconds": plan.seconds,
        "ours_received_bytes": plan.received_bytes,
        "planning_seconds": elapsed,
        "xla": note,
        "xla_read_at": list(family.sizes),
        "xla_seconds": None,
        "xla_received_bytes": None,
    }
    if fit is not None:
        steps = predicted(fit, n)
        row["xla_seconds"] = sum(priced(step, src.mesh, profile) for step in steps)
        row["xla_received_bytes"] = sum(step["received_bytes"] for step in steps)
        row["xla_collectives"] = [f"{s['kind']} over {','.join(s['axes'])}" for s in steps]
    return row


def compile_xla(family: Family, n: int, limits: Limits) -> Collectives:
    """XLA's collectives on a mesh that it can compile for. Raises LookupError if it does not."""
    src, dst = family.at(n)
    flags = f"--xla_force_host_platform_device_count={src.mesh.num_devices}"
    environment = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    workload = Workload("scale", family.name, "", src, dst)
    with Worker((sys.executable, "-m", "bench.workers.partition"), limits, environment) as worker:
        try:
            answer = worker.ask({"prepare": workload.request})
        except LostError as lost:
            raise LookupError(f"XLA at n = {n}: {lost.status}, {lost}") from lost
    if answer["status"] != "ok":
        raise LookupError(f"XLA at n = {n}: {answer['detail']}")
    collectives: Collectives = answer["collectives"]
    return collectives


def fitted(first: Collectives, second: Collectives, n: int, m: int) -> Collectives:
    """Per collective, group and delivered bytes as (c, p) of c * n^p, from two sizes.

    Raises LookupError unless both have the same collectives over the same axes, with whole p.
    """
    if [(c["kind"], c["axes"]) for c in first] != [(c["kind"], c["axes"]) for c in second]:
        raise LookupError(f"XLA takes other collectives at n = {n} than at n = {m}")
    return [
        {
            "kind": a["kind"],
            "axes": a["axes"],
            "group": _power(a["group"], b["group"], n, m),
            "delivered": _power(_delivered(a), _delivered(b), n, m),
        }
        for a, b in zip(first, second, strict=True)
    ]


def _power(at_n: Fraction | int, at_m: Fraction | int, n: int, m: int) -> tuple[Fraction, int]:
    """(c, p) with c * n^p = at_n and c * m^p = at_m."""
    for p in range(-8, 9):
        if Fraction(at_m) / at_n == Fraction(m, n) ** p:
            return at_n / Fraction(n) ** p, p
    raise LookupError(f"a figure of XLA's goes from {at_n} at n = {n} to {at_m} at n = {m}")


# What a device receives of what a collective over k devices delivers to it (or, for a
# reduce-scatter, takes from it); docs/theory.md, section 2.
_SHARE: dict[str, Callable[[Fraction], Fraction]] = {
    "all-gather": lambda k: (k - 1) / k,
    "all-to-all": lambda k: (k - 1) / k,
    "reduce-scatter": lambda k: (k - 1) / k,
    "all-reduce": lambda k: 2 * (k - 1) / k,
    "collective-permute": lambda _: Fraction(1),
}


def _delivered(collective: Figures) -> Fraction:
    return Fraction(collective["received_bytes"]) / _SHARE[collective["kind"]](
        Fraction(collective["group"])
    )


def predicted(fit: Collectives, n: int) -> Collectives:
    """The collectives at another size, in the form in which they were read."""
    result = []
    for collective in fit:
        group, delivered = (
            c * Fraction(n) ** p for c, p in (collective["group"], collective["delivered"])
        )
        received = delivered * _SHARE[collective["kind"]](group)
        result.append(
            {
                "kind": collective["kind"],
                "axes": collective["axes"],
                "group": int(group),
                "received_bytes": int(received),
            }
        )
    return result


def priced(collective: Figures, mesh: rd.Mesh, profile: Profile) -> float:
    """Seconds of one collective of XLA's, as ours over the same axes would be priced.

    Also cut into one for each link where that is cheaper, as ours are: a gather over nodes first.
    """
    digits = [
        part
        for axis in collective["axes"]
        for part in cut(
            DeviceDigit(axis, 1, mesh.axis_size(axis)),
            [end for linked in profile.parts_of(axis) for end in (linked.pre, linked.end)],
        )
    ]
    owned = [(digit, IndexDigit(0, 1, digit.size)) for digit in digits]
    if collective["group"] == prod(digit.size for digit in digits):
        delivered = int(_delivered(collective))
        held: dict[str, tuple[Collective, int]] = {
            "all-gather": (AllGather(tuple(owned)), delivered // collective["group"]),
            "reduce-scatter": (ReduceScatter(tuple(owned)), delivered),
            "all-to-all": (AllToAll(tuple(Move(d, i, i) for d, i in owned)), delivered),
        }
        if collective["kind"] in held:
            step, tile = held[collective["kind"]]
            return add_steps([step], 0.0, tile, 1, profile)[1]
    latencies = 2 if collective["kind"] == "all-reduce" else 1
    name = collective["kind"].replace("-", "_")
    return profile.seconds(digits, collective["received_bytes"], latencies, name)
