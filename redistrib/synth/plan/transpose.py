"""The transpose of a plan, as backpropagation needs it.

Law: a plan is a linear map; its transpose runs the transposed steps backwards, all_gather as
reduce_scatter and dynamic_slice as sharded_to_partial, all_to_all and permute inverted, all_reduce
and replicated_to_partial as themselves. Types become their duals: what is replicated over an axis
becomes a partial sum over it, and the reverse. So no tile and no step is larger than before.

Example: on x=2,y=4 the plan of `f32[16{x,y}, 8] -> f32[16{x}, 8]` is an all_gather over y. Its
transpose is a reduce_scatter over y, `f32[16{x}, 8] sum{y} -> f32[16{x,y}, 8]`: the gradient of
what every device along y has read is a sum over them.
"""

from __future__ import annotations

from redistrib.errors import LayoutError
from redistrib.synth.plan.collectives import Collective, Exchange
from redistrib.synth.plan.priced_steps import PricedSteps
from redistrib.synth.plan.routing import exchange_traffic
from redistrib.types.array_type import ArrayType


def dual(t: ArrayType) -> ArrayType:
    """The type of a cotangent: replicated axes become partial sums and partial ones replicated.

    >>> from redistrib.types.mesh import Mesh
    >>> str(dual(ArrayType.parse("f32[8{x}] sum{y}", Mesh(x=2, y=2, z=2))))
    'f32[8{x}] sum{z}'
    """
    _check_linear(t)
    return t.replace(partial=t.free_digits)


def _check_linear(t: ArrayType) -> None:
    if t.partial and t.reduction != "sum":
        raise LayoutError(f"only sums are linear, so only they have a transpose; got {t}", type=t)


def transposed(
    plan: PricedSteps,
) -> tuple[ArrayType, ArrayType, str, list[Collective]]:
    """The ends, strategy and steps of the transposed map, from the dual of `dst` to that of `src`.

    Raises LayoutError as `Plan.transpose` does.
    """
    for t in (plan.src, plan.dst):
        if t.uneven:
            raise LayoutError(
                f"only plans of even types are transposed; got {t}: pad it to a size that its axes "
                f"divide, or, without partial axes, plan from dst to src",
                type=t,
            )
    for t in plan.types:  # on the way, too
        _check_linear(t)
    src, dst = plan.src, plan.types[-1]
    if not src.size:  # without elements nothing is summed, and types have no partial axes
        return dst, src, "direct", [exchange_traffic(dst, src).exchange]
    steps = [
        _transposed(step, before, after)
        for step, before, after in zip(plan.steps, plan.types, plan.types[1:], strict=False)
    ]
    return dual(dst), dual(src), plan.strategy, steps[::-1]


def _transposed(step: Collective, before: ArrayType, after: ArrayType) -> Collective:
    if not isinstance(step, Exchange):
        return step.transposed(before)
    same = before.mesh == after.mesh or not (before.free_digits or after.free_digits)
    if not same or dual(before).partial != dual(after).partial:
        raise LayoutError(
            f"the transpose of an exchange is one only where the same axes are replicated "
            f"before and after; got {before} and {after}"
        )
    return exchange_traffic(dual(after), dual(before)).exchange
