"""A redistribution between two known shardings, as one primitive of jax.

Law: on global arrays a redistribution is the identity, so it is linear, its derivative is itself,
and its transpose is a redistribution from the sharding of the target's cotangent to that of the
source's. Cotangents swap `unreduced` and `reduced` (a partial sum and a replica that is to be
summed over), as those of JAX do. Where no axis is replicated, the transpose is the transposed plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType, NamedSharding

from redistrib.backends.jax import shardings
from redistrib.backends.jax.lowering import tile_program
from redistrib.backends.jax.partitioned import Options, constrain
from redistrib.errors import BackendError, LayoutError
from redistrib.synth.plan import Plan
from redistrib.synth.planner import plan
from redistrib.synth.transpose import dual
from redistrib.types.digits import DeviceDigit
from redistrib.types.named_sharding import type_of

PartitionSpec: Any = jax.sharding.PartitionSpec  # typed in parts only


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Move:
    """A plan between two PartitionSpecs on a mesh that has the axes of the plan, or digits of them.

    Compared by identity: one problem has one Move, from `find_move`.
    """

    plan: Plan
    mesh: Any  # jax Mesh or AbstractMesh
    axes: tuple[DeviceDigit, ...]
    source: Any
    target: Any

    def __call__(self, x: Any) -> Any:
        """The array in the target's layout."""
        found = self.plan.src
        if x.shape != found.shape or x.dtype != found.numpy_dtype:
            raise BackendError(
                f"the plan redistributes {found}; got shape {list(x.shape)}, dtype {x.dtype}",
                shape=x.shape,
                dtype=x.dtype,
            )
        return move_p.bind(x, move=self)

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of the plan's collectives."""
        return tuple(step.collective for step in self.plan.steps)

    def __repr__(self) -> str:
        # What a jaxpr shows.
        return f"{self.plan.src} -> {self.plan.dst}: {', '.join(self.steps) or 'nothing to do'}"


@lru_cache(maxsize=1024)
def find_move(
    shape: tuple[int, ...],
    dtype: Any,
    source: NamedSharding,
    target: NamedSharding,
    options: Options,
) -> Move:
    """The planned move between two shardings on one mesh.

    Raises LayoutError for shardings that no type can say, or on two meshes; InfeasibleError where
    the limit, in bytes per device, allows no plan.
    """
    if source.mesh != target.mesh:
        raise LayoutError(
            f"where values are traced, source and target have one mesh; got {source.mesh} and "
            f"{target.mesh}",
            src=source,
            dst=target,
        )
    found = find_plan(shape, dtype, source, target, options)
    return Move(found, source.mesh, shardings.whole_axes(found.src.mesh), source.spec, target.spec)


def find_plan(
    shape: tuple[int, ...],
    dtype: Any,
    source: NamedSharding,
    target: NamedSharding,
    options: Options,
) -> Plan:
    """The plan between two shardings, on any meshes."""
    src, dst = type_of(shape, dtype, source), type_of(shape, dtype, target)
    return plan(src, dst, strategy=options.strategy, memory_limit=options.memory_limit)


def is_explicit(mesh: Any) -> bool:
    """Whether all axes of a mesh are Explicit, so that types inside jit carry shardings."""
    return not mesh.empty and all(kind == AxisType.Explicit for kind in mesh.axis_types)


@lru_cache(maxsize=1024)
def transposed(move: Move) -> Move:
    """The move of cotangents, back from the target to the source."""
    source, target = (_cotangent(spec) for spec in (move.target, move.source))
    of = move.plan.src
    try:
        back = move.plan.transpose()
    except LayoutError:
        back = None  # an exchange among replicas: its transpose is a sum
    ends = _cotangent_type(move.plan.dst, move.target), _cotangent_type(of, move.source)
    if back is None or (back.src, back.dst) != ends:
        back = plan(*ends, memory_limit=move.plan.memory_limit)
    return replace(move, plan=back, source=source, target=target)


def _cotangent(spec: Any) -> Any:
    if not getattr(spec, "unreduced", None) and not getattr(spec, "reduced", None):
        return spec
    return PartitionSpec(*spec.partitions, unreduced=spec.reduced, reduced=spec.unreduced)


def _cotangent_type(t: Any, spec: Any) -> Any:
    return t.with_partial([digit for digit in dual(t).partial if digit.axis in _reduced(spec)])


def _reduced(spec: Any) -> frozenset[str]:
    return getattr(spec, "reduced", frozenset())


def mapped(move: Move) -> Any:
    """The shard_map of a move, from global array to global array."""
    return jax.shard_map(
        tile_program(move.plan, move.axes),
        mesh=move.mesh,
        in_specs=move.source,
        out_specs=move.target,
        check_vma=False,
    )


@lru_cache(maxsize=1024)
def _jitted(move: Move) -> Any:
    return jax.jit(mapped(move))


def _abstract(x: Any, *, move: Move) -> Any:
    if not is_explicit(x.sharding.mesh):
        return x
    return x.update(sharding=NamedSharding(x.sharding.mesh, _padded(move.target, x.ndim)))


def _padded(spec: Any, rank: int) -> Any:
    entries = [*spec.partitions, *[None] * (rank - len(spec.partitions))]
    return PartitionSpec(*entries, unreduced=spec.unreduced, reduced=spec.reduced)


def _transpose(cotangent: Any, _: Any, *, move: Move) -> Any:
    return [move_p.bind(cotangent, move=transposed(move))]


def _batch(args: Any, dims: Any, *, move: Move) -> Any:
    """One plan for the whole batch, its dimension laid out as it is."""
    (x,), (dim,) = args, dims
    options = Options(move.plan.strategy, move.plan.memory_limit)
    mesh = jax.typeof(x).sharding.mesh
    if not is_explicit(mesh):
        free = _with_entry(move.target, dim, PartitionSpec.UNCONSTRAINED)
        return constrain(x, NamedSharding(move.mesh, free), options), dim
    entry = jax.typeof(x).sharding.spec.partitions[dim]
    ends = [
        shardings.named(mesh, _with_entry(spec, dim, entry)) for spec in (move.source, move.target)
    ]
    return find_move(x.shape, x.dtype, *ends, options)(x), dim


def _with_entry(spec: Any, dim: int, entry: Any) -> Any:
    entries: Sequence[Any] = [*spec.partitions, *[None] * (dim - len(spec.partitions))]
    entries = [*entries[:dim], entry, *entries[dim:]]
    return PartitionSpec(*entries, unreduced=spec.unreduced, reduced=spec.reduced)


move_p: Any = Primitive("redistribute")
move_p.def_impl(lambda x, *, move: _jitted(move)(x))
move_p.def_abstract_eval(_abstract)
ad.deflinear2(move_p, _transpose)
batching.primitive_batchers[move_p] = _batch
mlir.register_lowering(
    move_p, mlir.lower_fun(lambda x, *, move: mapped(move)(x), multiple_results=False)
)
