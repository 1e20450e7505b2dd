"""How plans are made and run, per backend of torch.distributed: one table, with reasons.

A plan fixes who sends what to whom. Which plan suits a network, and whether a step is the backend's
own collective or messages between pairs of ranks, is chosen here.
"""

from __future__ import annotations

from dataclasses import dataclass

from redistrib.synth.planner.problem import Strategy


@dataclass(frozen=True, slots=True)
class Choices:
    """What is chosen for a backend.

    strategy: of plans for which none is asked. collectives: whether steps within a process group
        that exists already are the backend's own collectives, in the dtypes that it has them for.
    """

    strategy: Strategy
    collectives: bool


CHOICES = {
    # Measured (python -m bench.torch): one exchange takes less time than the collectives of a plan
    # that moves as much, since gloo's are made of the same messages, one round after the other.
    "gloo": Choices(strategy="direct", collectives=False),
    # Not measured, for want of devices: rings and trees within a node are the library's.
    "nccl": Choices(strategy="auto", collectives=True),
}


def choices(backend: str) -> Choices:
    """The choices for a backend as torch names it; others are taken as NCCL is."""
    return CHOICES.get(backend, CHOICES["nccl"])
