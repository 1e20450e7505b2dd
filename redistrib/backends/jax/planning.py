"""What `reshard` and `optimize` run between two types: a plan, in chunks where memory asks for it.

No plan can do with less than the tiles of its two ends. Where less is allowed, the plan runs in
chunks, one after the other along a dimension that it does not touch; each chunk keeps the limit.
From f32[64, 64, 64{x}] to f32[64, 64{x}, 64] on x=4 the tiles have 256 KiB; under a limit of 64 KiB
the plan runs four times, each time on 16 of the 64 indices of dimension 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from redistrib.backends.jax.carriers import carried, decoded, encoded
from redistrib.backends.jax.lowering import (
    chunk_dim,
    chunked_program,
    stacked_program,
    tile_program,
)
from redistrib.errors import InfeasibleError, LayoutError
from redistrib.synth.plan.data import Plan
from redistrib.synth.planner.choose import STRATEGIES, plan
from redistrib.synth.planner.problem import Strategy, check_name
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit

FALLBACKS = ("error", "xla")
SMALL = 1 << 16
"""Bytes of a tile up to which equal arrays are stacked: a copy costs less than a collective."""
STACKED = 8
"""Arrays that are stacked: for each place among them the compiler makes a program of its own."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to plan: `memory_limit` in bytes per device; whether XLA may do what we cannot.

    Raises RedistribError for a strategy or fallback that there is not.
    """

    strategy: Strategy = "auto"
    memory_limit: int | None = None
    fallback: str = "error"

    def __post_init__(self) -> None:
        check_name("strategy", self.strategy, STRATEGIES)
        check_name("fallback", self.fallback, FALLBACKS)


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and in how many chunks it runs, or of how many equal arrays, stacked to one."""

    plan: Plan
    chunks: int = 1
    arrays: int = 1

    def tile_program(
        self, axes: Sequence[DeviceDigit], platform: str | None = None, *, in_rounds: bool = False
    ) -> Any:
        """The program of one device, as `lowering.tile_program`; chunks are always in rounds."""
        if self.chunks == 1:
            return tile_program(self.plan, axes, platform, in_rounds=in_rounds)
        return chunked_program(self.plan, axes, self.chunks, platform)

    def tiles_program(
        self,
        axes: Sequence[DeviceDigit],
        dtype: Any,
        platform: str | None = None,
        *,
        in_rounds: bool = False,
    ) -> Callable[[Sequence[Any]], list[Any]]:
        """As `tile_program`, of the tiles of equal arrays, of any dtype that is carried."""
        program = self.tile_program(axes, platform, in_rounds=in_rounds)
        if self.arrays == 1:
            of_tile = carried(program, dtype)
            return lambda tiles: [of_tile(tile) for tile in tiles]
        of_tiles = stacked_program(program, self.plan, platform)
        return lambda tiles: [decoded(tile, dtype) for tile in of_tiles([*map(encoded, tiles)])]

    def of_equal(self, count: int, options: Options) -> list[Planned]:
        """What moves so many arrays as this one: where they are small, plans of several as one.

        A memory limit is for the tiles of one array.
        """
        src, dst = self.plan.src, self.plan.dst
        size = max(t.tile_bytes for t in (src, dst, self.plan.types[-1]))
        if size > SMALL or self.chunks > 1 or options.memory_limit is not None:
            return [self] * count
        sizes = [STACKED] * (count // STACKED) + [n for n in (count % STACKED,) if n]
        return [
            replace(find_plan(_stacked(src, n), _stacked(dst, n), options), arrays=n)
            if n > 1
            else self
            for n in sizes
        ]


def _stacked(t: ArrayType, count: int) -> ArrayType:
    return ArrayType(t.mesh, t.dtype, (count, *t.shape), ((), *t.dims), t.partial, t.reduction)


def find_plan(src: ArrayType, dst: ArrayType, options: Options) -> Planned:
    """The plan between two types, on one mesh or two, in the fewest chunks that keep the limit.

    Raises InfeasibleError where no number of chunks does.
    """
    limit = options.memory_limit
    for t in (src, dst):
        if t.uneven:
            raise LayoutError(f"jax lays out even tiles; got {t}", type=t)
    try:
        return Planned(plan(src, dst, strategy=options.strategy, memory_limit=limit))
    except InfeasibleError as error:
        unchunked = plan(src, dst, strategy=options.strategy)
        chunks = _chunks(unchunked, limit or 1)
        if chunks is None:
            raise InfeasibleError(
                f"{error}; in chunks it could do with less, but the plan leaves no dimension "
                f"alone whose tile falls into enough of them",
                memory_limit=limit,
                least_bytes=unchunked.peak_tile_bytes,
            ) from None
        return Planned(unchunked, chunks)


def _chunks(unchunked: Plan, limit: int) -> int | None:
    """The least number of chunks whose tiles keep the limit."""
    if unchunked.types[-1].mesh != unchunked.src.mesh:
        return None  # between two sets of devices nothing is chunked
    least = -(-unchunked.peak_tile_bytes // limit)
    counts = {
        count for n in unchunked.src.tile_shape for count in range(least, n + 1) if n % count == 0
    }
    return next(
        (count for count in sorted(counts) if chunk_dim(unchunked, count) is not None), None
    )
