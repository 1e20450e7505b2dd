"""Random programs of one to six redistributions, plain against ours.

By hand: `XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.jax.random_programs
FIRST LAST`; the numbers are seeds, and a failure names its own. Of two neighbours one is run by
`reshard`, the other by `optimize`.
"""

from __future__ import annotations

import json
import random
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from redistrib.backends import jax as rjax
from redistrib.types.tile import same_bits

DEVICES = np.array(jax.devices()[:8])
POINTS = (*[1] * 8, *[2] * 4, 3, 4, 5, 6)  # what takes time is XLA's compiler
SHAPES = ((8, 8), (16, 8), (8, 8, 8))
# On four devices programs are small; on eight every other kind of pair is met.
FOUR = ((("x", 2), ("y", 2)), (("z", 4),), (("x", 4), ("y", 1)), (("y", 2), ("x", 2)))
EIGHT = ((("x", 4), ("y", 2)), (("a", 2), ("b", 2), ("c", 2)), (("x", 2), ("y", 4)), (("z", 8),))
ORDERS = ([*range(8)], [0, 1, 3, 2, 6, 7, 5, 4], [7, 6, 5, 4, 3, 2, 1, 0])
FLOATS = ("float32", "bfloat16", "float16")
OTHERS = ("int32", "bool", "uint8", "int4", "float8_e4m3fn", "float8_e4m3b11fnuz")
IN_JIT = ("jit", "grad", "vmap", "remat grad", "scan")
NESTED = ("scan grad", "remat scan grad", "grad vmap", "scan vmap", "remat grad vmap")
TRANSFORMS = (*IN_JIT, *IN_JIT, *NESTED, "eager", "eager grad", "eager vmap")
"""What is around a program, from the inside out."""
KINDS = ((AxisType.Auto,), (AxisType.Explicit,), (AxisType.Explicit, AxisType.Auto))
"""Of the axes of a mesh, in turns."""
Move = Callable[[Any, NamedSharding], Any]


@dataclass(frozen=True)
class Program:
    """An array, the layouts that it takes one after the other, and what is around this."""

    shape: tuple[int, ...]
    dtype: str
    transform: str
    layouts: tuple[NamedSharding, ...]

    def body(self, move: Move) -> Callable[[Any], Any]:
        """One redistribution after the other; in jit with something to compute between them."""
        compute = (lambda x: x) if self.transform.startswith("eager") else _computed

        def run(x: Any) -> Any:
            for target in self.layouts[1:]:
                x = move(compute(x), target)
            return x

        return run

    def run(self, move: Move, wrap: Callable[..., Any]) -> Any:
        """What the program gives, jitted by `wrap` unless it is eager."""
        program, x = self.body(move), jax.device_put(self.array(), self.layouts[0])
        words = self.transform.split()
        for word in words:
            match word:
                case "vmap" if move is jax.device_put:  # which takes no account of the batch
                    program, x = self.body(lambda x, end: move(x, _batched(end))), self.batched()
                case "vmap":
                    program, x = jax.vmap(program), self.batched()
                case "remat":
                    program = jax.checkpoint(program)
                case "grad":
                    program = _gradient(program)
                case "scan":
                    program = _scanned(program)
        return (program if words[0] == "eager" else wrap(program))(x)

    def array(self) -> Any:
        """Small integers, whose sums are exact."""
        count = int(np.prod(self.shape))
        return (jnp.arange(count).reshape(self.shape) % 3).astype(self.dtype)

    def batched(self) -> Any:
        """Two arrays, stacked, and laid out as one is."""
        return jax.device_put(jnp.stack([self.array(), self.array()]), _batched(self.layouts[0]))


def _batched(end: NamedSharding) -> NamedSharding:
    return NamedSharding(end.mesh, P(None, *end.spec))


def _computed(x: Any) -> Any:
    return x * 2 + 1 if x.dtype in ("float32", "bfloat16", "float16", "int32") else x


def _gradient(body: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def loss(x: Any) -> Any:
        return (body(x).astype(jnp.float32) * jnp.arange(x.shape[-1]) % 5).sum()

    return jax.grad(loss)


def _scanned(body: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: jax.lax.scan(lambda c, _: (body(c), None), x, None, length=2)[0]


def program_of(seed: int) -> Program:
    """The program of a seed."""
    draw = random.Random(seed)
    transform, kinds = draw.choice(TRANSFORMS), draw.choice(KINDS)
    if transform == "eager grad":  # the gradient of a sum of an array with Explicit axes needs jit
        kinds = KINDS[0]
    shape, points = draw.choice(SHAPES), draw.choice(POINTS)
    dtype = draw.choice(FLOATS if "grad" in transform else FLOATS + OTHERS)
    if eager := transform.startswith("eager"):
        points = min(points, 3)  # each is a program of its own, or three
    meshes = [_mesh(draw, kinds, orders=eager)] * (points + 1)
    if eager or (kinds == KINDS[0] and draw.random() < 0.3):  # one mesh, or several
        others = (_mesh(draw, kinds, orders=eager) for _ in meshes)
        meshes = [
            draw.choice([mesh, other]) if eager or other.size == mesh.size else mesh
            for mesh, other in zip(meshes, others, strict=True)
        ]
    layouts = [NamedSharding(mesh, _spec(draw, shape, mesh)) for mesh in meshes]
    if "scan" in transform:
        layouts[-1] = layouts[0]
    return Program(shape, dtype, transform, tuple(layouts))


def _mesh(draw: random.Random, kinds: Sequence[AxisType], *, orders: bool) -> Mesh:
    axes = draw.choice(draw.choice([FOUR, FOUR, FOUR, EIGHT]))
    names, sizes = zip(*axes, strict=True)
    order = draw.choice(ORDERS) if orders else ORDERS[0]
    taken = [device for device in order if device < int(np.prod(sizes))]
    types = tuple(kinds[n % len(kinds)] for n in range(len(axes)))
    return Mesh(DEVICES[taken].reshape(sizes), names, axis_types=types)


def _spec(draw: random.Random, shape: Sequence[int], mesh: Mesh) -> Any:
    entries: list[list[str]] = [[] for _ in shape]
    names = list(mesh.axis_names)
    if AxisType.Explicit in mesh.axis_types:  # types say nothing of the others
        kinds = zip(names, mesh.axis_types, strict=True)
        names = [name for name, kind in kinds if kind == AxisType.Explicit]
    draw.shuffle(names)
    for name in names:
        dim = draw.randrange(len(shape) + 1)
        held = [*entries[dim], name] if dim < len(shape) else []
        if held and shape[dim] % int(np.prod([mesh.shape[n] for n in held])) == 0:
            entries[dim] = held
    return P(*(tuple(held) or None for held in entries))


def plain_move(program: Program) -> Move:
    """What jax has for it."""
    if program.transform.startswith("eager"):
        return jax.device_put
    if program.layouts[0].mesh.axis_types[0] == AxisType.Explicit:
        return jax.sharding.reshard
    return jax.lax.with_sharding_constraint


class JaxRefusesError(Exception):
    """Plain jax does not run a program."""


def check(program: Program, ways: Sequence[str] = ("reshard", "optimize")) -> None:
    """Raise AssertionError unless these ways to run a program agree with jax's."""
    try:
        plain = program.run(plain_move(program), jax.jit)
    except ValueError as error:  # of its own layout of a gradient in a loop, which does not divide
        if "is incompatible with mesh" in str(error):
            raise JaxRefusesError from error
        raise
    for way in ways:
        if way == "reshard" or program.transform.startswith("eager"):
            ours = program.run(rjax.reshard, jax.jit)
        else:
            ours = program.run(plain_move(program), rjax.optimize)
        assert (ours.shape, ours.dtype) == (plain.shape, plain.dtype)
        assert same_bits(np.asarray(ours), np.asarray(plain))
        assert ours.sharding.device_set == plain.sharding.device_set
        # What a gradient is laid out as in jit, or a batch, is nobody's choice; and on two meshes
        # jax gives the layout on one the mesh of the other.
        alone = len({end.mesh for end in program.layouts}) == 1
        eager = program.transform in ("eager", "eager grad")
        if eager or (alone and program.transform in ("jit", "scan")):
            source, *_, target = program.layouts
            asked = source if program.transform == "eager grad" else target
            ends = plain.sharding, asked  # jax may lay out a loop's carry otherwise
            assert any(ours.sharding.is_equivalent_to(end, ours.ndim) for end in ends)


def main() -> None:
    """Print a JSON object of what went wrong, by seed."""
    jax.config.update("jax_disable_most_optimizations", val=True)
    wrong, refused = {}, []
    for seed in range(*map(int, sys.argv[1:])):
        program = program_of(seed)
        try:
            check(program, ["reshard" if seed % 2 else "optimize"])
        except JaxRefusesError:
            refused.append(seed)
        except Exception:  # noqa: BLE001 - the parent reports it
            wrong[seed] = f"{program}\n{traceback.format_exc()}"
    if len(refused) > 1:  # of fifty: few enough for the rest to say something
        wrong["refused by jax"] = str(refused)
    json.dump(wrong, sys.stdout)


if __name__ == "__main__":
    main()
