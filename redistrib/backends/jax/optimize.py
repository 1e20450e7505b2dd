"""A user's function with our plans at the points where it changes layouts.

`optimize` traces the function and rewrites its jaxpr, those of inner jits, loops, branches, remat
and custom derivatives included: `redistribute_free` goes before and after every sharding
constraint, so that the partitioner asks us for the conversions to it and from it; an explicit
`reshard`, whose source is known, becomes a planned `redistribute`. What XLA inserts elsewhere stays
XLA's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import jax
from jax.extend import core
from jax.sharding import NamedSharding

from redistrib.backends.jax.moves import find_move, move_p
from redistrib.backends.jax.partitioned import free_p, free_params
from redistrib.backends.jax.planning import Options
from redistrib.backends.jax.shardings import is_explicit
from redistrib.errors import InfeasibleError, LayoutError
from redistrib.synth.planner.problem import Strategy


def optimize(
    function: Callable[..., Any] | None = None,
    *,
    strategy: Strategy = "auto",
    memory_limit: int | None = None,
    **jit_options: Any,
) -> Callable[..., Any]:
    """The function, jitted, with our plans at its sharding constraints and `jax.sharding.reshard`s.

    Use it as a decorator, below `jax.jit` or in its place; `jit_options` are those of `jax.jit`.
    Results are the same bit for bit as far as XLA computes the rest alike. What cannot be planned
    (uneven tiles, types inside shard_map, constraints in the rules of a `custom_vjp` that is
    differentiated outside) stays with XLA; so does what exceeds `memory_limit`, bytes per device
    for each tile.
    """
    if function is None:
        return lambda f: optimize(f, strategy=strategy, memory_limit=memory_limit, **jit_options)
    rewriting = _Rewriting(Options(strategy, memory_limit, fallback="xla"))

    @wraps(function)
    def optimized(*args: Any, **kwargs: Any) -> Any:
        # Arrays are traced; static arguments and other values are part of the function.
        leaves, structure = jax.tree.flatten((args, kwargs))
        places = [at for at, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]

        def of_arrays(*arrays: Any) -> Any:
            filled = list(leaves)
            for at, array in zip(places, arrays, strict=True):
                filled[at] = array
            args, kwargs = jax.tree.unflatten(structure, filled)
            return function(*args, **kwargs)

        arrays = [leaves[at] for at in places]
        jaxpr, shape = jax.make_jaxpr(of_arrays, return_shape=True)(*arrays)
        results = core.jaxpr_as_fun(rewriting.closed(jaxpr))(*arrays)
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return jax.jit(optimized, **jit_options)


@dataclass(frozen=True, slots=True)
class _Rewriting:
    options: Options

    def closed(self, jaxpr: Any) -> Any:
        return core.ClosedJaxpr(self.opened(jaxpr.jaxpr), jaxpr.consts)

    def opened(self, jaxpr: Any) -> Any:
        return jaxpr.replace(eqns=[new for eqn in jaxpr.eqns for new in self.equation(eqn)])

    def equation(self, eqn: Any) -> list[Any]:
        match eqn.primitive.name:
            case "sharding_constraint" if not _explicit(eqn):
                return self.constraint(eqn)
            case "reshard" if _explicit(eqn):
                return [self.reshard(eqn)]
            case "shard_map":
                return [eqn]  # values inside are tiles
            case _:
                return [eqn.replace(params={k: self.param(v) for k, v in eqn.params.items()})]

    def param(self, value: Any) -> Any:
        if isinstance(value, core.ClosedJaxpr):
            return self.closed(value)
        if isinstance(value, core.Jaxpr):
            return self.opened(value)
        if isinstance(value, (tuple, list)):
            return type(value)(self.param(v) for v in value)
        return value

    def constraint(self, eqn: Any) -> list[Any]:
        (value,), (result,) = eqn.invars, eqn.outvars
        before, after = core.Var(value.aval), core.Var(result.aval)
        constraint = eqn.replace(invars=[before], outvars=[after])
        return [self.free(eqn, value, before), constraint, self.free(eqn, after, result)]

    def free(self, eqn: Any, value: Any, result: Any) -> Any:
        params = free_params(value.aval.shape, value.aval.dtype, self.options)
        return eqn.replace(invars=[value], outvars=[result], primitive=free_p, params=params)

    def reshard(self, eqn: Any) -> Any:
        (value,) = eqn.invars
        source, target = value.aval.sharding, eqn.params["dst_sharding"]
        try:
            move = find_move(
                value.aval.shape,
                value.aval.dtype,
                source,
                NamedSharding(source.mesh, target.spec),
                self.options,
            )
        except (LayoutError, InfeasibleError):
            return eqn
        return eqn.replace(primitive=move_p, params={"move": move})


def _explicit(eqn: Any) -> bool:
    return is_explicit(eqn.invars[0].aval.sharding.mesh)
