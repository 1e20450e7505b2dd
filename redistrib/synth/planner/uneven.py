"""Between uneven types without common digits: reduce, exchange blocks, make partial again.

`f32[10{x}:ceil] sum{y} -> f32[10{x}:balanced]` on x=4,y=2 is an all_reduce over y, of tiles of 3,
3, 3 and 1 elements, and one exchange. Types of one partial set exchange addends as they are.
"""

from __future__ import annotations

from redistrib.synth.plan.collectives import AllReduce, Collective, Exchange, ReplicatedToPartial
from redistrib.types.array_type import ArrayType


def block_steps(src: ArrayType, dst: ArrayType) -> list[Collective]:
    """The steps between two types of one array, on one mesh or two, all tiles within both ends."""
    steps: list[Collective] = []
    stays = (src.partial, src.reduction) == (dst.partial, dst.reduction) and src.mesh == dst.mesh
    start, end = src, dst
    if src.partial and not stays:
        steps.append(AllReduce(src.partial))
        start = steps[-1].apply(src)
    if dst.partial and not stays:
        end = dst.replace(partial=())
    if start != end:
        onto = None if dst.mesh == src.mesh else dst.mesh
        steps.append(Exchange(end.placements, (), (), onto, str(end)))
    if end != dst:
        steps.append(ReplicatedToPartial(dst.partial, dst.reduction or "sum"))
    return steps
