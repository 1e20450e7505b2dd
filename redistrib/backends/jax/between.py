"""Arrays of a model plan between any devices: by copies in memory, or by one program over them all.

On CPU devices of this process the memory is one, and numpy copies (`host_copies`); anywhere else,
in any number of processes, one program runs on the devices of both sides (`union_program`). Where
w: f32[8{x}] on devices 0 and 1 goes to devices 2 and 3 of another process, both processes call

    program({Array("w", is_target=False): w})        [the array on devices 2 and 3]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from redistrib.backends.jax import internals
from redistrib.backends.jax.carriers import carrier, decoded, encoded
from redistrib.backends.jax.choices import choices
from redistrib.backends.jax.host_copies import Array, Key, host_copies
from redistrib.backends.jax.union_program import AXIS, union_program
from redistrib.models.figures import CHUNK, ModelFigures
from redistrib.models.moves import Move

PartitionSpec: Any = jax.sharding.PartitionSpec  # typed in parts only
Arrays = Mapping[Array, jax.Array]
Program = Callable[[Arrays], list[jax.Array]]


@dataclass(frozen=True, slots=True)
class Result:
    """What the array of a target is beside its elements; `dtype` may be one that types have not."""

    sharding: NamedSharding
    dtype: Any
    weak_type: bool = False


def between(
    plan: ModelFigures,
    moves: Sequence[Move],
    inputs: Mapping[Array, NamedSharding],
    results: Mapping[str, Result],
    most: int = CHUNK,
) -> Program:
    """A function of arrays that makes the targets of some moves, equal but for their names.

    `inputs` are the shardings of all that these moves read, `results` are the targets. In a
    program, what a device sends and what it receives at a time have `most` bytes at most, where
    pieces can be cut.
    """
    ends = [*inputs.values(), *(result.sharding for result in results.values())]
    if all(in_memory(device) for end in ends for device in end.mesh.devices.flat):
        return _by_host(plan, moves, inputs, results)
    return Union.of(plan, moves, inputs, results, most).program(plan, moves, results)


def in_memory(device: Any) -> bool:
    """Whether what a device holds is in the memory of this process."""
    return bool(device.platform == "cpu" and device.process_index == jax.process_index())


def inputs_of(move: Move) -> list[Array]:
    """The arrays that a move reads: sources, and targets that are made before."""
    read = []
    for step in move.steps:
        if step.earlier is not None:
            read.append(Array(step.earlier.target, is_target=True))
        elif step.copy.number is not None:
            read.append(Array(move.sources[step.copy.number][0], is_target=False))
    return [array for array in dict.fromkeys(read) if array != Array(move.target, is_target=True)]


def _by_host(
    plan: ModelFigures,
    moves: Sequence[Move],
    inputs: Mapping[Array, NamedSharding],
    results: Mapping[str, Result],
) -> Program:
    copies = host_copies(plan, moves)
    places = {read: [device.id for device in end.mesh.devices.flat] for read, end in inputs.items()}

    def run(arrays: Arrays) -> list[jax.Array]:
        held = {}
        for read, ids in places.items():
            kind = carrier(arrays[read].dtype)
            for device, shard in zip(ids, internals.shards(arrays[read]), strict=True):
                held[read, device] = np.asarray(shard).view(kind)
        written = copies.run(held)
        return [array_of(name, written, result) for name, result in results.items()]

    def array_of(name: str, written: Mapping[Key, Any], result: Result) -> Any:
        t, devices = plan.dst[name], [*result.sharding.mesh.devices.flat]
        tiles = [
            written[Array(name, is_target=True), device.id].view(result.dtype) for device in devices
        ]
        return internals.global_array(
            t.shape, result.dtype, result.weak_type, result.sharding, tiles
        )

    return run


@dataclass(frozen=True, slots=True)
class Union:
    """A jitted program on all devices of some equal moves; others that are equal run it too."""

    mesh: Any
    jitted: Any

    @classmethod
    def of(
        cls,
        plan: ModelFigures,
        moves: Sequence[Move],
        inputs: Mapping[Array, NamedSharding],
        results: Mapping[str, Result],
        most: int,
    ) -> Union:
        """The program of these moves."""
        ends = [*inputs.values(), *(result.sharding for result in results.values())]
        devices = {device.id: device for end in ends for device in end.mesh.devices.flat}
        mesh = jax.sharding.Mesh([devices[n] for n in sorted(devices)], AXIS)
        reads = inputs_of(moves[0])
        count, move = len(reads), moves[0]
        program = union_program(plan, move, reads, sorted(devices), most // len(moves))
        choose = choices(mesh.devices.flat[0].platform)
        target, dtype = plan.dst[move.target], results[move.target].dtype

        def tiles(*flat: Any) -> Any:
            members = [
                [encoded(tile).reshape(-1) for tile in flat[n * count : (n + 1) * count]]
                for n in range(len(moves))
            ]
            outputs = program.run(members, choose)
            return [decoded(tile.reshape(target.tile_shape), dtype) for tile in outputs]

        # What each device gives is its own; as replicas of one tile they have the shape of a tile.
        mapped = jax.shard_map(
            tiles, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False
        )
        return cls(mesh, jax.jit(mapped))

    def program(
        self, plan: ModelFigures, moves: Sequence[Move], results: Mapping[str, Result]
    ) -> Program:
        """A function of arrays that makes the targets of such moves."""
        same = NamedSharding(self.mesh, PartitionSpec())
        operands = [read for move in moves for read in inputs_of(move)]
        types = [plan.dst[x.name] if x.is_target else plan.source_type(x.name) for x in operands]

        def run(arrays: Arrays) -> list[jax.Array]:
            if not internals.is_here(self.mesh):
                return [_elsewhere(plan.dst[name].shape, end) for name, end in results.items()]
            spread = [
                _spread(arrays[read], t.tile_shape, same)
                for read, t in zip(operands, types, strict=True)
            ]
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                outputs = self.jitted(*spread)
            if not any(internals.is_here(result.sharding.mesh) for result in results.values()):
                # Nobody would ever wait for it here, nor hear that another process is lost.
                jax.block_until_ready(outputs)
            return [
                _kept(array, plan.dst[name].shape, result)
                for array, (name, result) in zip(outputs, results.items(), strict=True)
            ]

        return run


def _spread(x: jax.Array, shape: tuple[int, ...], mesh: NamedSharding) -> Any:
    """The tiles of an array, each as it is, on all devices: those that have none get zeros."""
    held = {next(iter(shard.devices())): shard for shard in internals.shards(x)}
    local = [d for d in mesh.mesh.devices.flat if d.process_index == jax.process_index()]
    tiles = [held[d] if d in held else _nothing(shape, x.dtype, d) for d in local]
    return internals.global_array(shape, x.dtype, x.weak_type, mesh, tiles)


def _elsewhere(shape: tuple[int, ...], result: Result) -> Any:
    """An array of which this process has nothing."""
    return internals.global_array(shape, result.dtype, result.weak_type, result.sharding, [])


def _nothing(shape: tuple[int, ...], dtype: Any, device: Any) -> Any:
    return _zeros(shape, dtype, jax.sharding.SingleDeviceSharding(device))()


@lru_cache(maxsize=256)
def _zeros(shape: tuple[int, ...], dtype: Any, where: Any) -> Any:
    return jax.jit(lambda: jax.numpy.zeros(shape, dtype), out_shardings=where)


def _kept(x: jax.Array, shape: tuple[int, ...], result: Result) -> Any:
    """The tiles on the devices of the result, as an array."""
    held = {next(iter(shard.devices())): shard for shard in internals.shards(x)}
    tiles = [held[device] for device in result.sharding.mesh.devices.flat if device in held]
    return internals.global_array(shape, result.dtype, result.weak_type, result.sharding, tiles)
