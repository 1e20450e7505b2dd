"""An identity that may change its layout: the partitioner says from what to what, we say how.

Inside jit, without explicit sharding, nobody knows the layout of a value before XLA's partitioner
has propagated those of its neighbours. `free` is an identity whose operand and result may be laid
out differently: propagation passes through it, and where the two ends then differ, the partitioner
asks for the program of one device, which is our plan. `constrain` puts it before a sharding
constraint. The transpose of `free` is itself, so a backward pass is planned in the same way.

In the program that XLA is given, f32[16, 16] on x=4, y=2 from P("x") to P("y"):

    %1 = custom_call @redistribute(%0) {backend_config = "redistrib 0.1.0 ..."}    x -> free
    %2 = sdy.sharding_constraint %1 <@mesh, [{"y"}, {}]>

and the partitioner then asks `_partition` about shape [16, 16] from {devices=[4,1,2]<=[8]
last_tile_dim_replicate} to {devices=[2,1,4]<=[4,2]T(1,0) last_tile_dim_replicate}. The text of the
call holds every option, so programs that do the same have the same key in jax's compilation cache,
in every process, and others do not.
"""

from __future__ import annotations

import json
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from importlib import import_module
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from redistrib.backends.jax import internals, shardings
from redistrib.backends.jax.carriers import carried, carrier
from redistrib.backends.jax.planning import Options, Planned, find_plan
from redistrib.errors import InfeasibleError, LayoutError, RedistribError
from redistrib.types.array_type import ArrayType
from redistrib.types.equivalence import on_mesh
from redistrib.types.mesh import Mesh

NAME = "redistribute"
free_p: Any = Primitive("redistribute_free")

# What the partitioner was told, for XLA's compiler hands on nothing but the text of an error.
_raised: deque[RedistribError] = deque(maxlen=16)
# Who hears of the plans that are made while XLA compiles, from whichever thread it asks.
_observers: list[Callable[[Planned], None]] = []


@contextmanager
def observing(observer: Callable[[Planned], None]) -> Iterator[None]:
    """A context in which an observer is told each plan that XLA's partitioner is given."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


def free(x: Any, options: Options) -> Any:
    """The array itself, in whatever layout its users want."""
    return free_p.bind(x, options=options)


def constrain(x: Any, sharding: Any, options: Options) -> Any:
    """`jax.lax.with_sharding_constraint` by our plans."""
    return jax.lax.with_sharding_constraint(free(x, options), sharding)


def _transpose(cotangent: Any, _: Any, *, options: Options) -> Any:
    return [free(cotangent, options)]


def _batch(args: Any, dims: Any, *, options: Options) -> Any:
    return free(args[0], options), dims[0]


def _lower(context: Any, x: Any, *, options: Options) -> Any:
    text = json.dumps({**asdict(options), "platform": internals.platform_of(context)})
    # Another release may plan otherwise. The root of the package is loaded by now.
    release = import_module(__name__.partition(".")[0]).__version__
    return [internals.identity_call(NAME, context, x, f"{release} {text}")]


free_p.def_impl(lambda x, **_: x)
free_p.def_abstract_eval(lambda x, **_: x)
ad.deflinear2(free_p, _transpose)
batching.primitive_batchers[free_p] = _batch
mlir.register_lowering(free_p, _lower)


def _partition(shape: Any, source: Any, target: Any, text: str) -> tuple[bytes, Any]:
    """The program of one device, and the sharding of its operand."""
    settings = json.loads(text.partition(" ")[2])
    platform = settings.pop("platform")
    options = Options(**settings)
    try:
        found, program = _planned(shape, source, target, options, platform)
    except RedistribError as error:
        if options.fallback == "error" or not isinstance(error, (LayoutError, InfeasibleError)):
            _raised.append(error)
            raise
        warnings.warn(f"XLA redistributes this one: {error}", stacklevel=1)
    else:
        for observer in _observers:
            observer(found)
        return program, source
    axes = {"d": target.num_devices()}
    return _bytes_of(lambda tile: tile, shape, target, axes, platform), target


@lru_cache(maxsize=1024)
def _planned(
    shape: Any, source: Any, target: Any, options: Options, platform: str
) -> tuple[Planned, bytes]:
    """A plan, and the program of one device; equal redistributions, of any program, share them."""
    dtype = shape.numpy_dtype()
    # A replicated sharding does not say over how many devices.
    count = max(1, *(end.num_devices() for end in (source, target)))
    src, dst = (
        type_of_hlo(shape.dimensions(), carrier(dtype), end, count) for end in (source, target)
    )
    found = find_plan(src, dst, options)
    axes = shardings.common_axes(found.plan)
    names = shardings.axis_names(src.mesh, axes)
    sizes = {name: axis.size for name, axis in zip(names, axes, strict=True)}
    program = carried(found.tile_program(axes, platform), dtype)
    return found, _bytes_of(program, shape, source, sizes, platform)


def _bytes_of(
    program: Callable[[Any], Any], shape: Any, source: Any, axes: dict[str, int], platform: str
) -> bytes:
    tile = source.tile(shape)
    given = jax.ShapeDtypeStruct(tile.dimensions(), tile.numpy_dtype())
    return internals.program_bytes(program, given, axes, platform)


def _restored(text: str) -> RedistribError | None:
    return next((error for error in reversed(_raised) if str(error) in text), None)


internals.register_partitioner(NAME, _partition)
internals.on_compile_error(_restored)


def type_of_hlo(shape: Sequence[int], dtype: object, sharding: Any, num_devices: int) -> ArrayType:
    """The type of an array with an HloSharding of jaxlib, on one axis `d` over all its devices.

    Raises LayoutError for uneven tiles, for subgroups that are not replicas, and where the devices
    are no iota, reshaped and transposed.
    """
    line = Mesh(d=num_devices)
    if sharding.is_replicated():
        return ArrayType(line, dtype, shape)
    replicas = all("REPLICATED" in str(kind) for kind in sharding.subgroup_types())
    if sharding.is_tiled() and replicas:
        # A mesh with an axis per dimension; what is left of them are replicas.
        sizes = sharding.tile_assignment_dimensions()
        axes = [f"t{dim}" for dim in range(len(sizes))]
        mesh = Mesh(zip(axes, sizes, strict=True), devices=sharding.tile_assignment_devices())
        tiled = ArrayType(mesh, dtype, shape, [(axis,) for axis in axes[: len(shape)]])
        found = on_mesh(tiled, line)
        if found is not None:
            return found
    raise LayoutError(f"a sharding tiles an iota of devices; got {sharding}", sharding=sharding)
