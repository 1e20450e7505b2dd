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
from jax.sharding import NamedSharding

from redistrib.backends.jax import shardings
from redistrib.backends.jax.carriers import carried, carrier
from redistrib.backends.jax.partitioned import constrain
from redistrib.backends.jax.planning import Options, Planned, find_plan
from redistrib.errors import BackendError, LayoutError
from redistrib.synth.plan.data import Plan
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit
from redistrib.types.named_sharding import entries_of, type_of

PartitionSpec: Any = jax.sharding.PartitionSpec  # typed in parts only


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Move:
    """A plan between two PartitionSpecs on a mesh that has the axes of the plan, or digits of them.

    Compared by identity: one problem has one Move, from `find_move`.
    """

    planned: Planned
    options: Options
    mesh: Any  # jax Mesh or AbstractMesh
    axes: tuple[DeviceDigit, ...]
    source: Any
    target: Any

    def __call__(self, x: Any) -> Any:
        """The array in the target's layout."""
        src = self.plan.src
        if x.shape != src.shape or carrier(x.dtype) != src.numpy_dtype:
            raise BackendError(
                f"the plan redistributes {src}; got shape {list(x.shape)}, dtype {x.dtype}",
                shape=x.shape,
                dtype=x.dtype,
            )
        return bind(x, self)

    @property
    def plan(self) -> Plan:
        """What is run, whether whole or in chunks."""
        return self.planned.plan

    def __repr__(self) -> str:
        # What a jaxpr shows.
        steps = ", ".join(step.collective for step in self.plan.steps) or "nothing to do"
        return f"{self.plan.src} -> {self.plan.dst}: {steps}"


def bind(x: Any, move: Move) -> Any:
    """The array in the target's layout, traced or not."""
    return move_p.bind(x, **move_params(move))


def move_params(move: Move) -> dict[str, Any]:
    """The parameters of `redistribute`."""
    concrete = isinstance(move.mesh, jax.sharding.Mesh)
    return {"move": move, "on_devices": _on_devices(move.mesh) if concrete else None}


@lru_cache(maxsize=1024)
def _on_devices(mesh: Any) -> Any:
    """A program on the devices of a mesh that does nothing.

    In the parameters of a primitive, it tells jax which devices the program around it is for.
    """
    nothing = jax.shard_map(
        lambda x: x, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec()
    )
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return jax.make_jaxpr(nothing)(jax.ShapeDtypeStruct((), bool))


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
    moved = carrier(dtype)
    src, dst = type_of(shape, moved, source), type_of(shape, moved, target)
    planned, axes = find_plan(src, dst, options), shardings.named_axes(src.mesh)
    return Move(planned, options, source.mesh, axes, source.spec, target.spec)


@lru_cache(maxsize=1024)
def transposed(move: Move) -> Move:
    """The move of cotangents, back from the target to the source."""
    src, dst = (
        _cotangent_type(t, spec, move.axes)
        for t, spec in ((move.plan.types[-1], move.target), (move.plan.src, move.source))
    )
    try:
        planned = Planned(move.plan.transpose(), move.planned.chunks)
    except LayoutError:  # an exchange among replicas: its transpose is a sum
        planned = None
    if planned is None or (planned.plan.src, planned.plan.dst) != (src, dst):
        planned = find_plan(src, dst, move.options)
    ends = cotangent_spec(move.target), cotangent_spec(move.source)
    return replace(move, planned=planned, source=ends[0], target=ends[1])


def cotangent_spec(spec: Any) -> Any:
    """The spec of cotangents: sums where the values are marked `reduced`, and the reverse."""
    if not getattr(spec, "unreduced", None) and not getattr(spec, "reduced", None):
        return spec
    return PartitionSpec(*entries_of(spec), unreduced=spec.reduced, reduced=spec.unreduced)


def _cotangent_type(t: ArrayType, spec: Any, axes: Sequence[DeviceDigit]) -> ArrayType:
    names = zip(axes, shardings.axis_names(t.mesh, axes), strict=True)
    marked = getattr(spec, "reduced", ())
    return t.replace(partial=[axis for axis, name in names if name in marked])


def mapped(move: Move) -> Any:
    """The shard_map of a move, from global array to global array."""
    concrete = isinstance(move.mesh, jax.sharding.Mesh)
    platform = move.mesh.devices.flat[0].platform if concrete else None
    program = move.planned.tile_program(move.axes, platform)
    return jax.shard_map(
        lambda tile: carried(program, tile.dtype)(tile),
        mesh=move.mesh,
        in_specs=move.source,
        out_specs=move.target,
        check_vma=False,
    )


@lru_cache(maxsize=1024)
def jitted(move: Move) -> Any:
    """The program of a move of concrete arrays."""
    return jax.jit(mapped(move))


def _abstract(x: Any, *, move: Move, **_: Any) -> Any:
    if not shardings.is_explicit(x.sharding.mesh):
        return x
    return x.update(sharding=NamedSharding(x.sharding.mesh, _padded(move.target, x.ndim)))


def _padded(spec: Any, rank: int) -> Any:
    entries = _entries(spec, rank)
    return PartitionSpec(*entries, unreduced=spec.unreduced, reduced=spec.reduced)


def _entries(spec: Any, rank: int) -> list[Any]:
    """The entries of a spec, at least `rank` of them."""
    entries = entries_of(spec)
    return [*entries, *[None] * (rank - len(entries))]


def _transpose(cotangent: Any, _: Any, *, move: Move, **__: Any) -> Any:
    return [bind(cotangent, transposed(move))]


def _batch(args: Any, dims: Any, *, move: Move, **_: Any) -> Any:
    """One plan for the whole batch, its dimension laid out as it is."""
    (x,), (dim,) = args, dims
    mesh = jax.typeof(x).sharding.mesh
    if not shardings.is_explicit(mesh):
        free = with_entry(move.target, dim, PartitionSpec.UNCONSTRAINED)
        return constrain(x, NamedSharding(move.mesh, free), move.options), dim
    entry = entries_of(jax.typeof(x).sharding.spec)[dim]
    ends = [
        shardings.named(move.mesh, with_entry(spec, dim, entry))
        for spec in (move.source, move.target)
    ]
    return find_move(x.shape, x.dtype, *ends, move.options)(x), dim


def with_entry(spec: Any, dim: int, entry: Any) -> Any:
    """The spec with an entry for a dimension that is inserted at `dim`."""
    entries = _entries(spec, dim)
    entries.insert(dim, entry)
    return PartitionSpec(*entries, unreduced=spec.unreduced, reduced=spec.reduced)


move_p: Any = Primitive("redistribute")
move_p.def_abstract_eval(_abstract)
ad.deflinear2(move_p, _transpose)
batching.primitive_batchers[move_p] = _batch
mlir.register_lowering(
    move_p, mlir.lower_fun(lambda x, *, move, **_: jitted(move)(x), multiple_results=False)
)
