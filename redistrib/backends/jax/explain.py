"""`explain`: the plans of an array or of a program before it runs, beside what XLA does by itself.

    explain(x, sharding)          the plan of `reshard`, and XLA's program of one array
    explain(step, params, batch)  those of `optimize(step)`, wherever they stand, and `jit(step)`

Bytes are read from the compiled programs, ours and XLA's in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import NamedSharding, SingleDeviceSharding

from redistrib.backends.jax import shardings
from redistrib.backends.jax.carriers import carrier
from redistrib.backends.jax.jaxprs import equations_in
from redistrib.backends.jax.moves import move_p
from redistrib.backends.jax.optimize import optimize
from redistrib.backends.jax.partitioned import observing
from redistrib.backends.jax.planning import Options, find_plan
from redistrib.backends.jax.reshard import resolved_target
from redistrib.errors import BackendError
from redistrib.interop.hlo_traffic import HloTraffic, hlo_traffic
from redistrib.synth.plan.data import Plan
from redistrib.text import parse_limit
from redistrib.types.named_sharding import type_of

PartitionSpec: Any = jax.sharding.PartitionSpec  # typed in parts only


@dataclass(frozen=True, slots=True)
class Explanation:
    """The plans of a program that move anything, each with how often it stands there.

    `str` gives a line for each plan and for each program; all bytes are per device. `ours` and
    `xla` are what the two programs move; None where there is no such program, as to other devices.
    """

    plans: tuple[tuple[Plan, int], ...]
    ours: HloTraffic | None
    xla: HloTraffic | None

    def __str__(self) -> str:
        lines = [
            f"{count} x  {plan.src} -> {plan.dst}: "
            + (", ".join(step.collective for step in plan.steps) or "nothing to do")
            + f"; received {plan.received_bytes} B (bound {plan.lower_bound_bytes} B)"
            for plan, count in self.plans
        ]
        for name, traffic in (("ours", self.ours), ("XLA", self.xla)):
            if traffic is not None:
                lines.append(
                    f"{name:4}  receives {traffic.received_bytes} B in {traffic.num_collectives} "
                    f"collectives, largest buffer {traffic.largest_buffer_bytes} B"
                )
        return "\n".join(lines) or "nothing is redistributed"


def explain(function: Any, *args: Any, memory_limit: int | str | None = None) -> Explanation:
    """The plans of `reshard(x, sharding)`, or of `optimize(f)` for these arguments; nothing runs.

    `explain(x, sharding)` takes an array, or a ShapeDtypeStruct with a sharding, and a
    NamedSharding or PartitionSpec. `explain(f, *args)` compiles f twice, with and without plans;
    arguments may be arrays or ShapeDtypeStructs. `memory_limit` is that of `reshard`, in bytes per
    device. Raises what `reshard` raises; BackendError for anything else.
    """
    options = Options(memory_limit=parse_limit(memory_limit))
    if isinstance(function, (jax.Array, jax.ShapeDtypeStruct)) and len(args) == 1:
        return _of_array(function, args[0], options)
    if not callable(function):
        raise BackendError(
            f"explain takes an array and a sharding, or a function and its arguments; got "
            f"{type(function).__name__} and {len(args)} more",
            given=function,
        )
    optimized: Any = optimize(function, memory_limit=memory_limit)
    traced = optimized.trace(*args)
    moves = (e.params["move"] for e in equations_in(traced.jaxpr.jaxpr) if e.primitive is move_p)
    plans = [move.plan for move in moves]
    with observing(lambda run: plans.append(run.plan)):
        ours = traced.lower().compile()
    plain = jax.jit(function).lower(*args).compile()
    counted: dict[Plan, int] = {}
    for plan in filter(lambda plan: plan.steps, plans):
        counted[plan] = counted.get(plan, 0) + 1
    return Explanation(tuple(counted.items()), _traffic(ours), _traffic(plain))


def _of_array(x: Any, target: Any, options: Options) -> Explanation:
    source: Any = x.sharding
    if isinstance(source, SingleDeviceSharding):
        source = NamedSharding(jax.sharding.Mesh([*source.device_set], "device"), PartitionSpec())
    end = resolved_target(x, target)
    src, dst = (type_of(x.shape, carrier(x.dtype), sharding) for sharding in (source, end))
    planned = find_plan(src, dst, options)
    if source.mesh.devices.tolist() != end.mesh.devices.tolist():
        return Explanation(((planned.plan, 1),), None, None)
    like = jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=source)
    typed = shardings.is_explicit(shardings.abstract(end.mesh))
    lay_out: Any = jax.sharding.reshard if typed else jax.lax.with_sharding_constraint
    program = explain(lambda x: lay_out(x, end), like, memory_limit=options.memory_limit)
    return Explanation(((planned.plan, 1),), program.ours, program.xla)


def _traffic(compiled: Any) -> HloTraffic:
    return hlo_traffic(compiled.as_text())
