"""How the steps that move data are lowered, per platform: one table, with reasons.

A step of a plan fixes who sends what to whom, not how. An all_gather or all_to_all can be the
collective of XLA, which wants the parts of a tile in front, in order, and so may cost a transposed
copy on either side; or rounds of permutes between boxes in place (rounds.py), which move the same
bytes with no copy but more launches. Exchanges are always rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import jax


class Use(Enum):
    """When XLA's own collective is used."""

    ALWAYS = auto()
    WITHOUT_TRANSPOSE = auto()
    """Where the parts of a tile lie in order on both sides of it."""
    NEVER = auto()


@dataclass(frozen=True, slots=True)
class Choices:
    """When a step is XLA's own collective; else it is rounds of permutes."""

    all_gather: Use
    all_to_all: Use


CHOICES = {
    # Measured (python -m bench.jax_resharding): a permute and an update in place run at the speed
    # of memcpy, a transposed copy at a fraction of it, an all_gather on a minor dimension at 1/80.
    "cpu": Choices(Use.WITHOUT_TRANSPOSE, Use.WITHOUT_TRANSPOSE),
    # Not measured, for want of devices: one collective has one launch, and the routes that the
    # vendor chose for it.
    "gpu": Choices(Use.ALWAYS, Use.ALWAYS),
    "tpu": Choices(Use.WITHOUT_TRANSPOSE, Use.WITHOUT_TRANSPOSE),
}

LEAST_MEMORY = Choices(Use.NEVER, Use.NEVER)
"""Nothing but the boxes of one round beside the tiles: for programs in chunks."""


def choices(platform: str | None) -> Choices:
    """The choices for a platform as jax names it; None is that of this process."""
    platform = platform or jax.default_backend()
    return CHOICES.get({"cuda": "gpu", "rocm": "gpu"}.get(platform, platform), CHOICES["gpu"])
