"""A user's function with our plans at the points where it changes layouts.

`optimize` traces the function and rewrites its jaxpr, those of inner jits, loops, branches, remat
and custom derivatives included: `redistribute_free` goes before and after every sharding
constraint, so that the partitioner asks us for the conversions to it and from it; an explicit
`reshard`, whose source is known, becomes a planned `redistribute`. What XLA inserts elsewhere stays
XLA's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import jax
from jax.extend import core
from jax.interpreters.partial_eval import dce_jaxpr
from jax.sharding import AxisType, NamedSharding

from redistrib.backends.jax.jaxprs import as_in_plain_jax
from redistrib.backends.jax.moves import find_move, move_p, move_params
from redistrib.backends.jax.partitioned import free_p
from redistrib.backends.jax.planning import Options
from redistrib.backends.jax.shardings import abstract, has_explicit, is_explicit
from redistrib.errors import InfeasibleError, LayoutError
from redistrib.synth.planner.problem import Strategy
from redistrib.text import parse_limit


def optimize(
    function: Callable[..., Any] | None = None,
    *,
    strategy: Strategy = "auto",
    memory_limit: int | str | None = None,
    **jit_options: Any,
) -> Callable[..., Any]:
    """The function, jitted, with our plans at its sharding constraints and `jax.sharding.reshard`s.

    Use it as a decorator, below `jax.jit` or in its place; `jit_options` are those of `jax.jit`,
    and `strategy` is a name that `redistrib.plan` takes. Results are the same bit for bit as far as
    XLA computes the rest alike, and those that are constrained are laid out as they were asked to
    be. What cannot be planned (uneven tiles, other kinds of memory, types inside shard_map,
    constraints in the rules of a `custom_vjp` that is differentiated outside, or beside a windowed
    reduction of several arrays) stays with XLA; so does what exceeds `memory_limit`, in bytes per
    device or a text as "1GiB", for each tile between two collectives. Raises RedistribError for an
    option that there is not.
    """
    if function is None:
        return lambda f: optimize(f, strategy=strategy, memory_limit=memory_limit, **jit_options)
    rewriting = _Rewriting(Options(strategy, parse_limit(memory_limit), fallback="xla"))

    @wraps(function)
    def optimized(*args: Any, **kwargs: Any) -> Any:
        # Arrays are traced; static arguments and other values are part of the function.
        leaves, structure = jax.tree.flatten((args, kwargs))
        traced = [n for n, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]

        def of_arrays(*arrays: Any) -> Any:
            filled = list(leaves)
            for n, array in zip(traced, arrays, strict=True):
                filled[n] = array
            args, kwargs = jax.tree.unflatten(structure, filled)
            return function(*args, **kwargs)

        arrays = [leaves[n] for n in traced]
        jaxpr, shape = jax.make_jaxpr(of_arrays, return_shape=True)(*arrays)
        # What nobody uses goes first: freed with others it would stay.
        used, _ = dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.outvars), instantiate=True)
        rewritten, _ = rewriting.opened(used)
        results = core.jaxpr_as_fun(core.ClosedJaxpr(rewritten, jaxpr.consts))(*arrays)
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return jax.jit(optimized, **jit_options)


Constraints = list[Any]
"""Per result of an equation or a jaxpr the equation that constrains it, or None."""


@dataclass(frozen=True, slots=True)
class _Rewriting:
    """Jaxprs with plans in them.

    A value that is constrained goes to the results of its jaxpr as it is, so that these are laid
    out as they were asked to be; everybody else uses it through `redistribute_free`, which is where
    its layout may change. As jaxprs, of a constrained to P("y"):

        before   b = sharding_constraint[P("y")] a;  c = sin b;  in (b, c)
        after    d = redistribute_free a;  b = sharding_constraint[P("y")] d
                 e = redistribute_free b;  c = sin e;  in (b, c)

    A call, branch or loop with such a result has a constrained value as its own. A loop that
    carries one is given one to begin with: else propagation weighs the layout that is asked for
    against the one that comes in. Values that can be freed together are, which XLA compiles faster.
    """

    options: Options

    def closed(self, jaxpr: Any) -> tuple[Any, Constraints]:
        """The jaxpr rewritten, and the constraint that each result has."""
        rewritten, constraints = self.opened(jaxpr.jaxpr)
        return core.ClosedJaxpr(rewritten, jaxpr.consts), constraints

    def opened(self, jaxpr: Any) -> tuple[Any, Constraints]:
        """As `closed`, of a jaxpr without its constants."""
        eqns: list[Any] = []
        freed: dict[Any, Any] = {}  # a constrained value -> what the equations after it use
        constraints: dict[Any, Any] = {}
        for eqn, stays in zip(jaxpr.eqns, as_in_plain_jax(jaxpr), strict=True):
            used = [freed.get(v, v) if isinstance(v, core.Var) else v for v in eqn.invars]
            new, of_outputs = self.equation(eqn if stays else eqn.replace(invars=used), stays)
            eqns += new
            for var, constraint in zip(eqn.outvars, of_outputs, strict=True):
                if constraint is not None:
                    constraints[var], freed[var] = constraint, core.Var(var.aval)
                    eqns.append(self.free(eqn, var, freed[var], constraint))
        results = [constraints.get(v) if isinstance(v, core.Var) else None for v in jaxpr.outvars]
        needed = {v for v in jaxpr.outvars if isinstance(v, core.Var)}
        needed.update(v for eqn in eqns for v in eqn.invars if isinstance(v, core.Var))
        eqns = [e for e in eqns if e.primitive is not free_p or e.outvars[0] in needed]
        return jaxpr.replace(eqns=_freed_together(eqns)), results

    def equation(self, eqn: Any, stays: bool) -> tuple[list[Any], Constraints]:
        """The equations in the place of one, and the constraint that each of its results has.

        What is constrained is freed before, unless it `stays` in the layout that it has.
        """
        match eqn.primitive.name:
            case "sharding_constraint" if self.plans(eqn, eqn.params["sharding"]):
                new = [eqn] if stays else self.constraint(eqn, eqn.invars[0], eqn.outvars[0])
                return new, [eqn]
            case "reshard" if self.plans(eqn, eqn.params["dst_sharding"]):
                return self.reshard(eqn), [None]
            case "shard_map" | "redistribute" | "redistribute_to":
                return [eqn], [None] * len(eqn.outvars)  # values inside are tiles, or ours
            case name:
                eqn, constraints = self.with_jaxprs(eqn)
                if name not in ("scan", "while"):
                    return [eqn], constraints
                return self.loop(eqn, constraints), constraints

    def with_jaxprs(self, eqn: Any) -> tuple[Any, Constraints]:
        """An equation with its jaxprs rewritten. Tuples with names are data, and stay."""
        results: list[Constraints] = []

        def rewritten(value: Any) -> Any:
            if isinstance(value, core.ClosedJaxpr):
                value, constraints = self.closed(value)
            elif isinstance(value, core.Jaxpr):
                value, constraints = self.opened(value)
            elif type(value) in (tuple, list):
                return type(value)(rewritten(v) for v in value)
            else:
                return value
            results.append(constraints)
            return value

        params = {name: rewritten(value) for name, value in eqn.params.items()}
        complete = [of_jaxpr for of_jaxpr in results if len(of_jaxpr) == len(eqn.outvars)]
        constraints = [
            next((constraint for constraint in alike if constraint is not None), None)
            for alike in zip(*complete, strict=True)
        ]
        none = [None] * len(eqn.outvars)
        return eqn.replace(params=params) if results else eqn, constraints or none

    def loop(self, eqn: Any, constraints: Constraints) -> list[Any]:
        """A loop, whose carried values are constrained before it as they are in its body."""
        operands, before = list(eqn.invars), []
        counts = [
            count for name, count in eqn.params.items() if name.endswith(("nconsts", "num_consts"))
        ]
        carried = eqn.params.get("num_carry", len(eqn.outvars))
        for n, constraint in enumerate(constraints[:carried], start=sum(counts)):
            if constraint is not None:
                value, operands[n] = operands[n], core.Var(operands[n].aval)
                before += self.constraint(
                    constraint.replace(ctx=eqn.ctx, source_info=eqn.source_info), value, operands[n]
                )
        return [*before, eqn.replace(invars=operands)]

    def plans(self, eqn: Any, target: Any) -> bool:
        """Whether the layout that is asked for is one of the device's memory, and ours to plan."""
        value, result = eqn.invars[0].aval, eqn.outvars[0].aval
        if not _is_array(eqn.outvars[0]) or not isinstance(target, NamedSharding):
            return False
        on_device = value.memory_space == result.memory_space and target.memory_kind in (
            None,
            "device",
        )
        manual = AxisType.Manual in target.mesh.axis_types
        # From a mesh with Auto axes to one with Explicit axes it is a change of the type alone.
        cast = eqn.primitive.name == "reshard" and not (
            has_explicit(value.sharding.mesh) and has_explicit(abstract(target.mesh))
        )
        return on_device and not manual and not cast

    def constraint(self, eqn: Any, value: Any, result: Any) -> list[Any]:
        freed = core.Var(value.aval)
        return [self.free(eqn, value, freed, eqn), eqn.replace(invars=[freed], outvars=[result])]

    def free(self, eqn: Any, value: Any, result: Any, constraint: Any) -> Any:
        """In the place of an equation, a value that is about to be constrained, or has been."""
        target = constraint.params.get("sharding") or constraint.params["dst_sharding"]
        return eqn.replace(
            invars=[value],
            outvars=[result],
            primitive=free_p,
            params={"options": self.options, "mesh": target.mesh},
            effects=set(),
        )

    def reshard(self, eqn: Any) -> list[Any]:
        (value,) = eqn.invars
        source, target = value.aval.sharding, eqn.params["dst_sharding"]
        mesh = eqn.params.get("concrete_mesh") or target.mesh
        if abstract(mesh) != source.mesh or not is_explicit(source.mesh):
            return self.constraint(eqn, value, eqn.outvars[0])
        ends = NamedSharding(mesh, source.spec), NamedSharding(mesh, target.spec)
        try:
            move = find_move(value.aval.shape, value.aval.dtype, *ends, self.options)
        except (LayoutError, InfeasibleError):
            return [eqn]
        return [eqn.replace(primitive=move_p, params=move_params(move))]


def _freed_together(eqns: Sequence[Any]) -> list[Any]:
    """The equations, with values that are freed on one mesh at the same depth freed by one.

    The depth of a value is the most that are freed, one after the other, on the way to it. So two
    of one depth do not need each other, and the equations of a depth come after those below it:

        before   b = free a;  c = sin b;  d = free c;  f = free e;  g = add d f
        after    b f = free a e;  c = sin b;  d = free c;  g = add d f
    """
    depths: dict[Any, int] = {}
    alike: dict[int, dict[Any, list[Any]]] = {}
    others: dict[int, list[Any]] = {}
    last = 0  # of an equation with effects, which stay in order
    for eqn in eqns:
        depth = max((depths.get(v, 0) for v in eqn.invars if isinstance(v, core.Var)), default=0)
        if eqn.primitive is free_p:
            depth += 1
            key = eqn.params["mesh"], eqn.invars[0].aval.sharding.mesh, repr(eqn.ctx)
            alike.setdefault(depth, {}).setdefault(key, []).append(eqn)
        else:
            if eqn.effects:
                depth = last = max(last, depth)
            others.setdefault(depth, []).append(eqn)
        depths |= dict.fromkeys(eqn.outvars, depth)
    ordered: list[Any] = []
    for depth in sorted({*alike, *others}):
        ordered += [
            same[0].replace(
                invars=[v for eqn in same for v in eqn.invars],
                outvars=[v for eqn in same for v in eqn.outvars],
            )
            for same in alike.get(depth, {}).values()
        ]
        ordered += others.get(depth, [])
    return ordered


def _is_array(var: Any) -> bool:
    """Whether a value is an array of numbers or keys, which the partitioner lays out."""
    return hasattr(var.aval, "shape") and hasattr(var.aval, "sharding")
