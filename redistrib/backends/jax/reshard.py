"""`reshard`: arrays, and trees of them, from the shardings they have to those asked for.

What the source is decides who plans, and when:

- concrete arrays have a sharding: planned at once (`arrays`);
- values traced on a mesh with Explicit axes have one in their type: planned while tracing
  (`moves`);
- other traced values have one when they run: an array's under `jax.vmap` outside jit, and inside
  jit that which XLA has propagated, planned while XLA compiles, for the two layouts that its
  partitioner names (`deferred`, `partitioned`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Format, with_layout_constraint
from jax.sharding import AxisType, NamedSharding

from redistrib.backends.jax import arrays, internals
from redistrib.backends.jax.carriers import carrier
from redistrib.backends.jax.deferred import deferred
from redistrib.backends.jax.moves import find_move
from redistrib.backends.jax.planning import Options
from redistrib.backends.jax.shardings import abstract, has_explicit, is_explicit, named
from redistrib.errors import BackendError, InfeasibleError, LayoutError, RedistribError
from redistrib.synth.planner.problem import Strategy
from redistrib.text import parse_limit
from redistrib.types.named_sharding import entries_of, type_of

PartitionSpec: Any = jax.sharding.PartitionSpec  # typed in parts only
Program = Callable[[Any], Any]


def reshard(
    tree: Any,
    shardings: Any,
    *,
    donate: bool = False,
    memory_limit: int | str | None = None,
    strategy: Strategy = "auto",
    fallback: str = "error",
) -> Any:
    """Every array of a tree in another layout, outside and inside jit; differentiable.

    `tree` holds what `jax.device_put` takes: arrays of any element type, random keys, numpy arrays
    and numbers. `shardings` is one for all of them or a tree (a prefix of `tree` suffices), of
    NamedShardings, PartitionSpecs on the mesh of `jax.set_mesh`, else on the array's own, devices,
    SingleDeviceShardings and Formats of these. A program that jit compiles stays on its devices.

    All is planned before anything is compiled. A change of layout is one program, kept for all
    arrays of that shape and dtype. `donate` gives the arrays up, those that are in the tree twice
    once they have been used twice. `memory_limit`, in bytes per device or a text as "1GiB", bounds
    every tile between two collectives; what XLA allocates beside the tiles it does not bound.
    `strategy` is a name that `redistrib.plan` takes, by default the cheapest plan.

    `fallback="xla"` leaves to jax what cannot be planned. Otherwise LayoutError is raised for
    shardings that types cannot say (uneven tiles, unconstrained axes, other memory) and for meshes
    that cannot be related, InfeasibleError where the limit is too low, BackendError for what is no
    array and where devices are other processes', RedistribError for an option that there is not.
    In a tree, errors begin with the leaf's path.
    """
    options = Options(strategy, parse_limit(memory_limit), fallback)
    if isinstance(tree, jax.Array):  # one array: no tree to walk
        return _program(tree, shardings, options, donate)(tree)
    leaves, structure = jax.tree.flatten(tree)
    targets = targets_of(tree, shardings)
    shared = sharing_buffers(leaves) if donate else frozenset()
    programs = []
    for n, (x, target) in enumerate(zip(leaves, targets, strict=True)):
        try:
            if donate and isinstance(x, jax.Array) and is_deleted(x):
                raise BackendError("an array of a donated tree has its data; this one is deleted")
            programs.append(_program(x, target, options, donate and n not in shared))
        except RedistribError as error:
            path = jax.tree_util.keystr(jax.tree_util.tree_leaves_with_path(tree)[n][0])
            raise type(error)(f"at {path or 'the tree'}: {error}", **vars(error)) from error
    moved = [run(x) for run, x in zip(programs, leaves, strict=True)]
    if shared:
        give_up([leaves[n] for n in shared], moved)
    return jax.tree.unflatten(structure, moved)


def cache_info() -> Any:
    """How often `reshard` had the program of an array, and how many it has made.

    A named tuple as of `functools.lru_cache`: hits, misses, maxsize, currsize, in programs.
    """
    return arrays.array_program.cache_info()


def targets_of(tree: Any, shardings: Any) -> list[Any]:
    """The target of each leaf. Raises LayoutError unless the tree begins with `shardings`."""

    def is_target(x: Any) -> bool:
        return isinstance(x, (NamedSharding, PartitionSpec))

    try:
        broadcast = jax.tree.map(
            lambda target, below: jax.tree.map(lambda _: target, below),
            shardings,
            tree,
            is_leaf=is_target,
        )
    except ValueError as error:
        raise LayoutError(
            f"shardings are one for all arrays or a tree that the arrays' tree begins with: {error}"
        ) from error
    return jax.tree.leaves(broadcast, is_leaf=is_target)


def sharing_buffers(leaves: Sequence[Any]) -> frozenset[int]:
    """The places of arrays whose buffers are also those of another leaf, as tied weights are."""
    held = [_buffers(x) for x in leaves]
    uses = Counter(buffer for buffers in held for buffer in buffers)
    return frozenset(n for n, buffers in enumerate(held) if any(uses[b] > 1 for b in buffers))


def is_deleted(x: Any) -> bool:
    """Whether an array has no data any more."""
    return not isinstance(x, jax.core.Tracer) and bool(x.is_deleted())


def _buffers(x: Any) -> set[Any]:
    if not isinstance(x, jax.Array) or isinstance(x, jax.core.Tracer) or x.is_deleted():
        return set()
    if jnp.issubdtype(x.dtype, jax.dtypes.extended):
        x = jax.random.key_data(x)
    return {(s.device, s.data.unsafe_buffer_pointer()) for s in x.addressable_shards if s.data.size}


def give_up(shared: Iterable[Any], moved: Iterable[Any]) -> None:
    """Delete the arrays, all of whose uses are done, but what a result is a view of."""
    kept = {buffer for x in moved for buffer in _buffers(x)}
    for x in shared:
        if not kept & _buffers(x):
            x.delete()


def _program(x: Any, target: Any, options: Options, donate: bool) -> Program:
    if not isinstance(target, (NamedSharding, PartitionSpec)):
        end = _named_end(target)
        if end is not None:
            move = _program(x, end, options, donate)
            if not isinstance(x, jax.core.Tracer) and not internals.tracing():
                return lambda x: jax.device_put(move(x), target)  # in place, but for its order
            order = target.layout if isinstance(target, Format) else None
            return move if order is None else lambda x: with_layout_constraint(move(x), order)
        if options.fallback == "xla":
            return lambda x: jax.device_put(x, target)
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return _key_program(x, resolved_target(x, target), options, donate)
    if not isinstance(target, NamedSharding):
        target = resolved_target(x, target)
    if isinstance(x, jax.core.Tracer):
        return _traced_program(x, x.to_concrete_value(), target, options, donate)
    if not isinstance(x, jax.Array):
        try:
            shape = jax.typeof(x).shape
        except TypeError:
            raise BackendError(
                f"reshard takes arrays and numbers; got {type(x).__name__}", value=x
            ) from None
        if options.fallback == "error":
            type_of(shape, "u8", target)  # that it is legal
        if not internals.tracing():
            return lambda x: jax.device_put(x, target)
    if internals.tracing():  # closed over
        return _traced_program(x, x, target, options, donate)
    return arrays.program_of(x, target, options, donate)


def _key_program(keys: Any, target: NamedSharding, options: Options, donate: bool) -> Program:
    """Random keys move as the integers that they are, whose dimensions come last."""
    spec = target.spec
    trailing = [None] * (keys.ndim - len(entries_of(spec)))
    target = target.update(spec=PartitionSpec(*entries_of(spec), *trailing))
    data, kind = jax.random.key_data(keys), jax.random.key_impl(keys)
    move = _program(data, target, options, donate)
    return lambda keys: jax.random.wrap_key_data(move(jax.random.key_data(keys)), impl=kind)


def _named_end(target: Any) -> NamedSharding | None:
    """Where a device, the sharding of one, or a Format leads; None where it says too little."""
    sharding = target.sharding if isinstance(target, Format) else target
    devices = [*getattr(sharding, "device_set", [sharding])]
    if len(devices) == 1 and all(isinstance(device, jax.Device) for device in devices):
        return NamedSharding(jax.sharding.Mesh(devices, "device"), PartitionSpec())
    return sharding if isinstance(sharding, NamedSharding) else None


def resolved_target(x: Any, target: Any) -> NamedSharding:
    """The NamedSharding that is asked for."""
    if isinstance(target, NamedSharding):
        return target
    if not isinstance(target, PartitionSpec):
        raise LayoutError(
            f"a target is a NamedSharding, a PartitionSpec, a device or a Format; got "
            f"{type(target).__name__}",
            dst=target,
        )
    if not jax.sharding.get_abstract_mesh().empty:
        tracing = isinstance(x, jax.core.Tracer)
        mesh: Any = jax.sharding.get_abstract_mesh() if tracing else jax.sharding.get_mesh()
    else:
        held = jax.typeof(x) if isinstance(x, jax.core.Tracer) else x
        mesh = getattr(getattr(held, "sharding", None), "mesh", None)
        if mesh is None or mesh.empty:
            raise LayoutError(
                f"a PartitionSpec needs a mesh, of jax.set_mesh or of the array; got {target}",
                dst=target,
            )
    return named(mesh, target)


def _traced_program(
    x: Any, held: Any, target: NamedSharding, options: Options, donate: bool
) -> Program:
    """What a traced value runs through; `donate` is for concrete arrays.

    `held` is the array behind the value, as there is under jax.grad and jax.vjp outside jit.
    """
    if donate:
        raise BackendError("inside jit nothing is donated; the outer jit has donate_argnums")
    sharding = jax.typeof(x).sharding
    if any(kind == AxisType.Manual for kind in sharding.mesh.axis_types):
        raise BackendError("inside shard_map a value is a tile; tile_program redistributes tiles")
    source = getattr(held, "sharding", None)
    on_target = getattr(source, "mesh", None) in (None, target.mesh)
    try:
        _check_memory(x, target)
        if is_explicit(sharding.mesh) and abstract(target.mesh) == sharding.mesh and on_target:
            end = NamedSharding(target.mesh, sharding.spec)
            return find_move(x.shape, x.dtype, end, target, options)
        if isinstance(source, NamedSharding) and on_target:
            return find_move(x.shape, x.dtype, source, target, options)
        type_of(x.shape, carrier(x.dtype), target)  # the target at least is legal
    except (LayoutError, InfeasibleError):
        if options.fallback == "xla":
            return _by_xla(sharding.mesh, target)
        raise
    return lambda x: deferred(x, target, source, options)


def _check_memory(x: Any, target: NamedSharding) -> None:
    """Raise LayoutError unless the value is, and is to stay, in the memory of its device."""
    space, kinds = jax.typeof(x).memory_space, {None, "device"}
    if isinstance(target.mesh, jax.sharding.Mesh):
        kinds.add(target.mesh.devices.flat[0].default_memory().kind)
    if space != jax.memory.Space.Device or target.memory_kind not in kinds:
        raise LayoutError(
            f"a traced value stays in the memory of its device; got {space} and {target}",
            dst=target,
        )


def _by_xla(mesh: Any, target: NamedSharding) -> Program:
    """What plain jax has for a traced value."""
    device = NamedSharding(target.mesh, target.spec)
    explicit = has_explicit(mesh) and has_explicit(abstract(target.mesh))
    lay_out = jax.sharding.reshard if explicit else jax.lax.with_sharding_constraint
    if target.memory_kind == device.memory_kind:
        return lambda x: lay_out(x, target)
    return lambda x: jax.device_put(lay_out(x, device), target)
