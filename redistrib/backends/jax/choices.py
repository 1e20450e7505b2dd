"""How the steps that move data are lowered, per platform: one table, with reasons.

A step of a plan fixes who sends what to whom, not how. An all_gather or all_to_all can be the
collective of XLA, which wants the parts of a tile in front, in order, and so may cost a transposed
copy on either side; or rounds of permutes between boxes in place (rounds.py), which move the same
bytes with no copy but more launches. Exchanges are always rounds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

import jax
import numpy as np


class Use(Enum):
    """When XLA's own collective is used."""

    ALWAYS = auto()
    WITHOUT_TRANSPOSE = auto()
    """Where the parts of a tile lie in order on both sides of it."""
    NEVER = auto()


MAX_GROUP = 16
"""Devices in a group beyond which a collective is never rounds: programs grow with their number."""


@dataclass(frozen=True, slots=True)
class Choices:
    """When a step is XLA's own collective; else it is rounds of permutes.

    `pairs` is for a step between pairs of devices in a plan in which nothing else communicates.
    `barriers`: the compiler keeps an optimization_barrier until it has ordered the program.
    `widens`: it widens floats of one or two bytes where they are only moved, which changes a NaN.
    `cuts`: the most boxes that a piece of an exchange is cut into where it is no box; where more
    are needed, the tiles are viewed with more axes, which may be a copy.
    `halves`: a box is at most half of the larger tile, so one sent and one received are one tile.
    `lanes`: the elements that memory is tiled by along the last dimension. Where they do not divide
    a chunk, the compiler likes other layouts in a loop than outside it, and would copy the ends of
    the loop; so the chunk is copied, out of the source and into the target.
    `ordered`: bytes of a box from which on a round waits for the one before. Smaller ones may be
    alive together, in programs that compile faster.
    `selected`: the most boxes, as large as that, that a tile is put together from in one pass,
    where they fill it with whole rows; else each is written, when it has arrived, into a tile that
    is zero before.
    """

    all_gather: Use
    all_to_all: Use
    pairs: Use | None = None
    barriers: bool = True
    widens: bool = False
    cuts: int = 1
    halves: bool = False
    lanes: int = 1
    ordered: int = 1 << 14
    selected: int = 0

    def in_rounds(self) -> Choices:
        """Rounds everywhere: beside the tiles, nothing but the boxes of one round."""
        never = Use.NEVER
        return replace(self, all_gather=never, all_to_all=never, pairs=never, ordered=0, selected=0)


CHOICES = {
    # Measured (python -m bench.jax_resharding): in groups of 4 and more the collective and its
    # transposed copy take 0.5 to 1 times as long as rounds; in pairs 1.2 times, but between other
    # collectives two transposes become one. The compiler drops barriers before it orders a program,
    # and then takes all boxes before it sends the first. Up to 8 boxes of whole rows in one pass
    # take 0.6 to 0.95 times as long as one write for each, others 0.9 to 1.5 times; it holds one
    # tile more.
    "cpu": Choices(
        all_gather=Use.ALWAYS,
        all_to_all=Use.ALWAYS,
        pairs=Use.WITHOUT_TRANSPOSE,
        barriers=False,
        widens=True,
        selected=8,
    ),
    # Speed is not measured, for want of devices: one collective is one launch. Compiled for H100,
    # a transposed copy after a gather that is not the first step takes up to 1.5 tiles; rounds
    # keep every program within 1, if the two boxes of a round are: between 3 and 4 parts one can be
    # 3/4 of a tile.
    "gpu": Choices(Use.WITHOUT_TRANSPOSE, Use.ALWAYS, halves=True),
    # Speed is not measured, for want of devices. Compiled for v5e, transposed copies take up to 2.5
    # tiles, as a tile with few minor elements is padded to 128 of them; with rounds at most 2.
    # Memory is tiled by the two minor axes, so a view with other minor axes is a copy.
    "tpu": Choices(Use.WITHOUT_TRANSPOSE, Use.WITHOUT_TRANSPOSE, cuts=4, lanes=128),
}


def choices(platform: str | None) -> Choices:
    """The choices for a platform as jax names it; None is that of this process."""
    platform = platform or jax.default_backend()
    return CHOICES.get({"cuda": "gpu", "rocm": "gpu"}.get(platform, platform), CHOICES["gpu"])


def moved_as(dtype: Any, choose: Choices) -> Any:
    """The dtype that elements move as: integers, if XLA would widen floats where they are moved."""
    kept = dtype.itemsize > 2 or dtype.kind in "iub" or dtype == np.float16
    return dtype if kept or not choose.widens else np.dtype(f"uint{8 * dtype.itemsize}")


def as_bits(tile: Any, choose: Choices) -> Any:
    """The tile as what it moves as."""
    return from_bits(tile, moved_as(tile.dtype, choose))


def from_bits(tile: Any, dtype: Any) -> Any:
    """The inverse of `as_bits` for a tile of this dtype."""
    return tile if tile.dtype == dtype else jax.lax.bitcast_convert_type(tile, dtype)
