"""The transpose of a plan, as backpropagation needs it.

Law: a plan is a linear map; its transpose runs the transposed steps backwards, all_gather as
reduce_scatter and dynamic_slice as sharded_to_partial, all_to_all and permute inverted, all_reduce
and replicated_to_partial as themselves. Types become their duals: what is replicated over an axis
becomes a partial sum over it, and the reverse. So no tile and no step is larger than before.
"""

from __future__ import annotations

from redistrib.errors import LayoutError
from redistrib.synth.collectives import (
    AllGather,
    AllReduce,
    AllToAll,
    Collective,
    CollectivePermute,
    DynamicSlice,
    Exchange,
    Move,
    ReduceScatter,
    ReplicatedToPartial,
    ShardedToPartial,
)
from redistrib.synth.plan import Plan, make_plan
from redistrib.synth.routing import exchange_traffic
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit


def dual(t: ArrayType) -> ArrayType:
    """The type of a cotangent: replicated axes become partial sums and partial ones replicated.

    >>> from redistrib.types.mesh import Mesh
    >>> str(dual(ArrayType.parse("f32[8{x}] sum{y}", Mesh(x=2, y=2, z=2))))
    'f32[8{x}] sum{z}'
    """
    if t.partial and t.reduction != "sum":
        raise LayoutError(f"only sums are linear; got {t}", type=t)
    used = [*(device for device, _ in t.placements), *t.partial]
    free = []
    for name, size in t.mesh.axes:
        end = 1
        for digit in sorted(d for d in used if d.axis == name):
            free.append(DeviceDigit(name, end, digit.pre // end))
            end = digit.end
        free.append(DeviceDigit(name, end, size // end))
    return t.with_partial(free)


def transpose(plan: Plan) -> Plan:
    """The plan of the transposed map, from the dual of `dst` to the dual of `src`.

    `seconds` is that of the default profile. Raises LayoutError where the transpose is a sum that
    no one step of ours is: of an exchange whose replicas change, of a table permute among replicas;
    and for a reduction other than sum, which is not linear.
    """
    if not plan.src.size:  # without elements nothing is summed, and types have no partial axes
        exchange = exchange_traffic(plan.dst, plan.src).exchange
        return make_plan(plan.dst, plan.src, plan.strategy, [exchange])
    steps = [
        _transposed(step, before, after)
        for step, before, after in zip(plan.steps, plan.types, plan.types[1:], strict=False)
    ]
    return make_plan(dual(plan.dst), dual(plan.src), plan.strategy, reversed(steps))


def _transposed(step: Collective, before: ArrayType, after: ArrayType) -> Collective:
    match step:
        case DynamicSlice(placements):
            return ShardedToPartial(placements, "sum")
        case ShardedToPartial(placements):
            return DynamicSlice(placements)
        case AllGather(placements):
            return ReduceScatter(placements)
        case ReduceScatter(placements):
            return AllGather(placements)
        case AllToAll(moves):
            return AllToAll(tuple(Move(m.device, m.target, m.source) for m in moves))
        case CollectivePermute(routes, table):
            if table is None:
                return CollectivePermute(tuple((new, old) for old, new in routes))
            return CollectivePermute((), table.inverse(before))
        case AllReduce() | ReplicatedToPartial():
            return step
        case Exchange():
            if dual(before).partial != dual(after).partial:
                raise LayoutError(
                    f"the transpose of an exchange is one only where the same axes are replicated "
                    f"before and after; got {before} and {after}"
                )
            return exchange_traffic(dual(after), dual(before)).exchange
