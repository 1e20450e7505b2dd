"""Every notation that is both read and written, as one table for the tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import redistrib as rd
from redistrib.interop import alpa, colossalai, dtensor, hlo, jax_text, scalapack, shardy
from redistrib.types.digits import DeviceDigit, Local
from tests.generators import Choose, random_mesh, random_pair


@dataclass(frozen=True)
class Notation:
    """`write` a type, `read` what was written on the mesh, shape and dtype of that type."""

    write: Callable[[rd.ArrayType], str]
    read: Callable[[str, rd.ArrayType], rd.ArrayType]
    draw: Callable[[Choose], rd.ArrayType] = lambda choose: random_pair(choose)[0]


def _on(parse: Any) -> Callable[[str, rd.ArrayType], rd.ArrayType]:
    return lambda text, t: parse(text, t.mesh, t.shape, t.dtype)


def with_devices(choose: Choose) -> rd.ArrayType:
    """A random type, half of the time on a mesh with an order of devices of its own."""
    t = random_pair(choose)[0]
    if choose((True, False)):
        return t
    left = list(range(t.mesh.num_devices))
    devices = [left.pop(choose(range(len(left)))) for _ in range(len(left))]
    mesh = rd.Mesh(t.mesh.axes, devices=devices)
    return rd.ArrayType(mesh, t.dtype, t.shape, t.dims, t.partial, t.reduction)


def block_cyclic(choose: Choose) -> rd.ArrayType:
    """A random block-cyclic matrix on a process grid."""
    mesh = rd.Mesh(p=choose((1, 2, 3, 4)), q=choose((1, 2, 3, 6)))
    cycles, blocks = [(choose((1, 2, 3, 8)), choose((1, 2, 5))) for _ in range(2)], []
    shape = []
    for (cycle, block), (name, size) in zip(cycles, mesh.axes, strict=True):
        shape.append(cycle * block * size)
        blocks.append((Local(cycle), DeviceDigit(name, 1, size)))
    return rd.ArrayType(mesh, choose(("f32", "f64", "c128")), shape, blocks)


NOTATIONS = {
    "PartitionSpec": Notation(jax_text.format_partition_spec, _on(jax_text.parse_partition_spec)),
    "NamedSharding": Notation(
        jax_text.format_named_sharding,
        lambda text, t: jax_text.parse_named_sharding(text, None, t.shape, t.dtype),
    ),
    "aval": Notation(jax_text.format_aval, lambda text, t: jax_text.parse_aval(text, t.mesh)),
    "Shardy": Notation(shardy.format_sdy, _on(shardy.parse_sdy), with_devices),
    **{
        f"HLO v{version}": Notation(
            partial(hlo.format_hlo, version=version), _on(hlo.parse_hlo), with_devices
        )
        for version in (1, 2, 3)
    },
    "DTensor": Notation(dtensor.format_dtensor, _on(dtensor.parse_dtensor)),
    "Alpa": Notation(alpa.format_alpa, _on(alpa.parse_alpa)),
    "ColossalAI": Notation(colossalai.format_colossalai, _on(colossalai.parse_colossalai)),
    "ScaLAPACK": Notation(
        scalapack.format_scalapack,
        lambda text, t: scalapack.parse_scalapack(text, t.mesh, None, t.dtype),
        block_cyclic,
    ),
}


def random_mesh_with_devices(choose: Choose) -> rd.Mesh:
    """A random mesh, half of the time with its devices in reverse."""
    mesh = random_mesh(choose)
    reverse = range(mesh.num_devices)[::-1] if choose((True, False)) else None
    return rd.Mesh(mesh.axes, devices=reverse)
