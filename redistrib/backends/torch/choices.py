"""How plans are made and run, per backend of torch.distributed: one table, with reasons.

A plan fixes who sends what to whom. Which plan suits a network, and whether a step is the backend's
own collective or messages between pairs of ranks, is chosen here.
"""

from __future__ import annotations

from dataclasses import dataclass

from redistrib.synth.plan.data import Plan
from redistrib.synth.plan.tile_program import Gather, Operation, Reduce, Scatter, Swap
from redistrib.synth.planner.choose import plan
from redistrib.synth.planner.problem import Strategy
from redistrib.types.array_type import ArrayType


@dataclass(frozen=True, slots=True)
class Choices:
    """What is chosen for a backend.

    strategy: of plans for which none is asked. reducing: likewise, of those with a partial source.
    collectives: the operations of a tile program that are the backend's own collectives, where a
        process group of these ranks exists already, in the dtypes that it has them for.
    """

    strategy: Strategy
    reducing: Strategy
    collectives: frozenset[type[Operation]]


CHOICES = {
    # Measured (python -m bench.torch): one exchange takes less time than the collectives of a plan
    # that moves as much, since gloo's are made of the same messages, one round after the other.
    # Its all_reduce takes 0.85 of the processor time of ours: it needs no second buffer.
    "gloo": Choices("direct", "auto", frozenset({Reduce})),
    # Not measured, for want of devices: rings and trees within a node are the library's.
    "nccl": Choices("auto", "auto", frozenset({Gather, Swap, Scatter, Reduce})),
}


def choices(backend: str) -> Choices:
    """The choices for a backend as torch names it; others are taken as NCCL is."""
    return CHOICES.get(backend, CHOICES["nccl"])


def planned(src: ArrayType, dst: ArrayType, backend: str) -> Plan:
    """The plan between two types that suits a backend."""
    choose = choices(backend)
    return plan(src, dst, strategy=choose.reducing if src.partial else choose.strategy)
