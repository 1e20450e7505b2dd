"""Equal moves on one mesh as one program of several arrays.

Four arrays f32[64{x}], x=8, that are gathered: small ones move as one, f32[4, 64{x}], by one
collective; large ones each by its own, so that nothing is stacked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import jax
from jax.sharding import NamedSharding

from redistrib.backends.jax import internals, meshes, shardings
from redistrib.backends.jax.arrays import weak_p
from redistrib.backends.jax.carriers import carrier
from redistrib.backends.jax.choices import choices, moved_as
from redistrib.backends.jax.lowering import chunk_dim
from redistrib.backends.jax.planning import Options, Planned, find_plan
from redistrib.types.named_sharding import type_of


@dataclass(frozen=True, slots=True)
class Ends:
    """An array before and after: what equal moves have in common."""

    shape: tuple[int, ...]
    dtype: Any
    weak_type: bool
    source: NamedSharding
    target: NamedSharding

    @property
    def is_view(self) -> bool:
        """Whether the result has the same buffers, once it is planned on one mesh."""
        planned = planned_for(self)
        return planned is not None and not planned.plan.steps


@dataclass(frozen=True, slots=True)
class Way:
    """How an array moves: in so many chunks, and in rounds of permutes or by XLA's collectives."""

    chunks: int = 1
    in_rounds: bool = False


WAYS = (Way(), Way(in_rounds=True), *(Way(1 << n, in_rounds=True) for n in range(1, 7)))
"""From the fastest to that with the least memory beside the tiles."""


@lru_cache(maxsize=1024)
def planned_for(ends: Ends) -> Planned | None:
    """The plan of one of these arrays; None where it leads to other devices or orders of them."""
    source_devices, target_devices = (
        list(end.mesh.devices.flat) for end in (ends.source, ends.target)
    )
    if source_devices != target_devices:
        return None
    src, dst = (type_of(ends.shape, carrier(ends.dtype), end) for end in (ends.source, ends.target))
    planned = find_plan(src, dst, Options())
    return None if meshes.crosses(planned.plan) else planned


@lru_cache(maxsize=1024)
def program_of(ends: Ends, count: int, way: Way) -> Together | None:
    """A jitted function of so many arrays; None where a plan leaves no dimension for chunks.

    The plan is that of `planned_for`.
    """
    planned = planned_for(ends)
    assert planned is not None
    src, dst = planned.plan.src, planned.plan.types[-1]
    if way.chunks > 1:
        if chunk_dim(planned.plan, way.chunks) is None:
            return None
        planned = Planned(planned.plan, way.chunks)
    axes = shardings.common_axes(planned.plan)
    jax_mesh: Any = ends.source.mesh
    mesh = shardings.refined_mesh(src.mesh, jax_mesh, axes)
    before, after = (shardings.partition_spec(t, axes) for t in (src, dst))
    if ends.source.mesh == ends.target.mesh:
        axes, mesh = shardings.named_axes(src.mesh), jax_mesh
        before, after = ends.source.spec, ends.target.spec
    platform, dtype = mesh.devices.flat[0].platform, ends.dtype
    if way.in_rounds and carrier(dtype) == dtype and not src.partial:
        # As integers outside of the program, which inside it takes two tiles.
        dtype = moved_as(dtype, choices(platform))
    runs = [
        (run.arrays, run.tiles_program(axes, dtype, platform, in_rounds=way.in_rounds))
        for run in planned.of_equal(count, Options())
    ]

    def tiles(*values: Any) -> Any:
        moved: list[Any] = []
        for number, run in runs:
            moved += run(values[len(moved) : len(moved) + number])
        return tuple(moved)

    mapped = jax.shard_map(
        tiles, mesh=mesh, in_specs=(before,) * count, out_specs=(after,) * count, check_vma=False
    )

    def arrays(*values: Any) -> Any:
        moved = mapped(*values)
        return tuple(map(weak_p.bind, moved)) if ends.weak_type else moved

    # Explicit axes are part of the type: those of the user's mesh are no axes of another.
    viewed = mesh != jax_mesh and shardings.is_explicit(mesh)
    enter, leave = NamedSharding(mesh, before), NamedSharding(mesh, after)
    if not viewed:
        enter, leave = ends.source, ends.target
    return Together(ends, mesh, enter, dtype, jax.jit(arrays, out_shardings=(leave,) * count))


@dataclass(frozen=True, slots=True)
class Together:
    """A program of arrays with these ends; `temp_bytes` per device, -1 until it is compiled.

    The arrays enter it with a sharding on its mesh, as elements of its dtype.
    """

    ends: Ends
    mesh: Any
    enter: NamedSharding
    dtype: Any
    program: Any
    temp_bytes: int = -1

    def __call__(self, *arrays: jax.Array) -> Sequence[jax.Array]:
        """The arrays, moved."""
        if not internals.is_here(self.mesh):
            end, weak = self.ends.target, self.ends.weak_type
            return [internals.global_array(x.shape, x.dtype, weak, end, []) for x in arrays]
        with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
            moved: Sequence[jax.Array] = self.program(
                *(meshes.viewed(x, self.enter, self.dtype) for x in arrays)
            )
        return [meshes.viewed(x, self.ends.target, self.ends.dtype) for x in moved]

    def compiled(self, count: int) -> Together:
        """The program for so many arrays, compiled, so that its memory is known."""
        like = jax.ShapeDtypeStruct(
            self.ends.shape,
            self.dtype,
            sharding=self.enter,
            weak_type=self.ends.weak_type,
        )
        with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
            program = self.program.lower(*[like] * count).compile()
        temp = program.memory_analysis().temp_size_in_bytes
        return replace(self, program=program, temp_bytes=temp)
