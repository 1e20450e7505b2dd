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

XLA takes 8 ms to read the program of a call, however small, so a call has as many operands as are
there together; equal small ones move as one array.
"""

from __future__ import annotations

import json
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import import_module
from itertools import islice
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from redistrib.backends.jax import internals, shardings
from redistrib.backends.jax.carriers import carrier
from redistrib.backends.jax.planning import Options, Planned, find_plan
from redistrib.errors import InfeasibleError, LayoutError, RedistribError
from redistrib.types.array_type import ArrayType
from redistrib.types.equivalence import on_mesh
from redistrib.types.mesh import Mesh

NAME = "redistribute"
AT_ONCE = 16
"""Operands of a call: the time that Shardy takes for one grows with their square."""
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


def free(arrays: Sequence[Any], options: Options, mesh: Any = None) -> list[Any]:
    """The arrays themselves, each in whatever layout its users want.

    `mesh` is that of the layouts: Shardy propagates none through a call in which there are two.
    """
    freed: list[Any] = free_p.bind(*arrays, options=options, mesh=mesh)
    return freed


def constrain(x: Any, sharding: Any, options: Options) -> Any:
    """`jax.lax.with_sharding_constraint` by our plans."""
    (freed,) = free([x], options, sharding.mesh)
    return jax.lax.with_sharding_constraint(freed, sharding)


def nonzero(tangents: Sequence[Any], run: Callable[[list[Any], list[int]], Sequence[Any]]) -> Any:
    """Tangents with those that are not zero as `run` gives them, of their places too."""
    results = list(tangents)
    places = [n for n, tangent in enumerate(tangents) if type(tangent) is not ad.Zero]
    if places:
        for n, result in zip(places, run([tangents[n] for n in places], places), strict=True):
            results[n] = result
    return results


def _jvp(primals: Any, tangents: Any, **params: Any) -> Any:
    return free(primals, **params), nonzero(tangents, lambda values, _: free(values, **params))


def _transpose(cotangents: Any, *_: Any, **params: Any) -> Any:
    return nonzero(cotangents, lambda values, _: free(values, **params))


def _batch(args: Any, dims: Any, **params: Any) -> Any:
    return free(args, **params), dims


def _lower(context: Any, *operands: Any, options: Options, **_: Any) -> Any:
    text = json.dumps({**asdict(options), "platform": internals.platform_of(context)})
    # Another release may plan otherwise. The root of the package is loaded by now.
    release = import_module(__name__.partition(".")[0]).__version__
    calls = [operands[n : n + AT_ONCE] for n in range(0, len(operands), AT_ONCE)]
    return [
        result
        for call in calls
        for result in internals.identity_call(NAME, context, call, f"{release} {text}")
    ]


free_p.multiple_results = True
free_p.def_impl(lambda *arrays, **_: list(arrays))
free_p.def_abstract_eval(lambda *arrays, **_: list(arrays))
ad.primitive_jvps[free_p] = _jvp
ad.primitive_transposes[free_p] = _transpose
batching.primitive_batchers[free_p] = _batch
mlir.register_lowering(free_p, _lower)


@dataclass(frozen=True, slots=True)
class _Operand:
    """What the partitioner says of one operand: a shape of XLA's client, and two HloShardings."""

    shape: Any
    source: Any
    target: Any

    @property
    def tile(self) -> Any:
        """What one device has of the operand."""
        tile = self.source.tile(self.shape)
        return jax.ShapeDtypeStruct(tile.dimensions(), tile.numpy_dtype())


def _partition(
    shapes: Sequence[Any], sources: Sequence[Any], targets: Sequence[Any], text: str
) -> tuple[bytes, list[Any]]:
    """The program of one device, and the shardings of its operands."""
    settings = json.loads(text.partition(" ")[2])
    platform = settings.pop("platform")
    options = Options(**settings)
    requested = map(_Operand, shapes, sources, targets)
    operands = tuple(_plannable(operand, options) for operand in requested)
    runs, program = _program(operands, options, platform)
    for observer in _observers:
        for run in runs:
            observer(run)
    return program, [operand.source for operand in operands]


def _plannable(operand: _Operand, options: Options) -> _Operand:
    """The operand, in the layout of its target already where XLA is to redistribute it."""
    try:
        if operand.source != operand.target:
            _found(operand, options)
    except RedistribError as error:
        if options.fallback == "error" or not isinstance(error, (LayoutError, InfeasibleError)):
            _raised.append(error)
            raise
        warnings.warn(f"XLA redistributes this one: {error}", stacklevel=1)
        return replace(operand, source=operand.target)
    return operand


@lru_cache(maxsize=1024)
def _found(operand: _Operand, options: Options) -> Planned:
    dtype, ends = operand.shape.numpy_dtype(), (operand.source, operand.target)
    # A replicated sharding does not say over how many devices.
    count = max(1, *(end.num_devices() for end in ends))
    src, dst = (type_of_hlo(operand.shape.dimensions(), carrier(dtype), end, count) for end in ends)
    return find_plan(src, dst, options)


@lru_cache(maxsize=1024)
def _program(
    operands: tuple[_Operand, ...], options: Options, platform: str
) -> tuple[tuple[Planned, ...], bytes]:
    """What runs, and the program of one device; equal calls, of any program, share them."""
    places: dict[_Operand, list[int]] = {}
    for n, operand in enumerate(operands):
        if operand.source != operand.target:
            places.setdefault(operand, []).append(n)
    planned = {operand: _found(operand, options) for operand in places}
    runs: list[tuple[list[int], Planned]] = []
    for operand, equal in places.items():
        remaining = iter(equal)
        equal_runs = planned[operand].of_equal(len(equal), options)
        runs += [([*islice(remaining, run.arrays)], run) for run in equal_runs]
    axes = shardings.common_axes(*(plan.plan for plan in planned.values())) if planned else ()

    def of_tiles(*tiles: Any) -> list[Any]:
        results = list(tiles)
        for taken, run in runs:
            program = run.tiles_program(axes, tiles[taken[0]].dtype, platform)
            for n, tile in zip(taken, program([tiles[n] for n in taken]), strict=True):
                results[n] = tile
        return results

    names = shardings.axis_names(runs[0][1].plan.src.mesh, axes) if runs else ()
    sizes = {name: axis.size for name, axis in zip(names, axes, strict=True)}
    arguments = [operand.tile for operand in operands]
    return (
        tuple(run for _, run in runs),
        internals.program_bytes(of_tiles, arguments, sizes, platform),
    )


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
        on_line = on_mesh(tiled, line)
        if on_line is not None:
            return on_line
    raise LayoutError(f"a sharding tiles an iota of devices; got {sharding}", sharding=sharding)
