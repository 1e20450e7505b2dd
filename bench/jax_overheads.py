"""What plans cost beside plain jax: compile time, whole trees, other devices.

    python -m bench.jax_overheads [compile] [trees] [devices] [eager] [--turns 4]

On 8 virtual CPU devices, and 8 others; CPU time of the process, ours and plain jax in turns, the
median of each.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

Way = Callable[[], Any]


def table(
    title: str,
    rows: dict[str, dict[str, Way]],
    turns: int,
    clock: Callable[[], float] = time.process_time,
) -> None:
    """Print the CPU time of the ways to do each thing; the ratio is to the first of them."""
    print(f"\n{title}: CPU time, ms, and over that of the first")
    for name, ways in rows.items():
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(turns):
            for way, run in ways.items():
                start = clock()
                run()
                taken[way].append(clock() - start)
        medians = {way: median(times) for way, times in taken.items()}
        first = next(iter(medians.values()))
        times = ", ".join(f"{way} {1e3 * t:.1f} ({t / first:.2f})" for way, t in medians.items())
        print(f"- {name}: {times}", flush=True)


def compiling(turns: int) -> None:
    """Programs traced, lowered and compiled, nothing of them cached, by jax or by us."""
    import jax

    from bench.jax_programs import PROGRAMS
    from redistrib.backends import jax as rjax

    def compiled(jit: Any, function: Any, args: Any) -> Any:
        forget_plans()
        forget: Any = jax.clear_caches
        forget()
        return jit(function).lower(*args).compile()

    ways = {"plain": jax.jit, "ours": rjax.optimize}
    table(
        "compilation",
        {
            name: {way: partial(compiled, jit, *arguments) for way, jit in ways.items()}
            for name, arguments in PROGRAMS.items()
        },
        turns,
    )


def forget_plans() -> None:
    """Empty every cache of the package, so that plans and their programs are made anew."""
    for name, module in [*sys.modules.items()]:
        if name.startswith("redistrib."):
            for member in vars(module).values():
                getattr(member, "cache_clear", int)()


def trees(turns: int) -> None:
    """The 291 arrays of a Llama-3 8B, scaled by 32, from FSDP 8 to TP 8."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding

    from redistrib.backends import jax as rjax

    spec: Any = jax.sharding.PartitionSpec
    mesh = jax.sharding.Mesh(jax.devices()[:8], ("x",))
    rows, columns = NamedSharding(mesh, spec("x")), NamedSharding(mesh, spec(None, "x"))
    width, hidden, words, heads = 128, 448, 4008, 32
    layer = [
        ((width, width), rows, columns),
        ((heads, width), rows, columns),
        ((heads, width), rows, columns),
        ((width, width), columns, rows),
        ((hidden, width), columns, rows),
        ((hidden, width), columns, rows),
        ((width, hidden), rows, columns),
        ((width,), rows, NamedSharding(mesh, spec())),
        ((width,), rows, NamedSharding(mesh, spec())),
    ]
    arrays = [*layer * 32, ((words, width), columns, rows), ((words, width), columns, rows)]
    arrays.append(layer[-1])
    tree = [jax.device_put(jnp.ones(shape), source) for shape, source, _ in arrays]
    ends = [target for _, _, target in arrays]
    one_jit = jax.jit(lambda tree: tree, out_shardings=ends)

    def done(move: Way) -> None:
        for x in move():
            x.block_until_ready()

    ways: dict[str, Way] = {
        "one jit": partial(done, lambda: one_jit(tree)),
        "reshard_tree": partial(done, lambda: rjax.reshard_tree(tree, ends)),
        "device_put": partial(done, lambda: jax.device_put(tree, ends)),
    }
    for way in ways.values():
        way()
    table("running", {f"{len(arrays)} arrays": ways}, 4 * turns)


def moving(x: Any, target: Any, count: int = 1) -> dict[str, Way]:
    """An array moved so many times in a row outside jit, in both ways, each warm."""
    import jax

    from redistrib.backends import jax as rjax

    def move(put: Any) -> None:
        for _ in range(count):
            put(x, target).block_until_ready()

    ways: dict[str, Way] = {
        "device_put": partial(move, jax.device_put),
        "reshard": partial(move, rjax.reshard),
    }
    for way in ways.values():
        way()
    return ways


def devices(turns: int) -> None:
    """One array from rows on eight devices to columns on eight others."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import Mesh, NamedSharding

    spec: Any = jax.sharding.PartitionSpec
    senders, receivers = (Mesh(jax.devices()[n : n + 8], ("x",)) for n in (0, 8))
    rows, columns = NamedSharding(senders, spec("x")), NamedSharding(receivers, spec(None, "x"))
    arrays = {}
    for size in (64, 1024, 2048, 4096):
        x = jax.device_put(jnp.ones((size, size)), rows)
        arrays[f"f32[{size}, {size}]"] = moving(x, columns)
    table("to other devices", arrays, 4 * turns)


def eager(turns: int) -> None:
    """What the calling thread takes to dispatch a small array, a hundred times, outside jit."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding

    spec: Any = jax.sharding.PartitionSpec
    mesh = jax.sharding.Mesh(jax.devices()[:8], ("x",))
    rows, columns = NamedSharding(mesh, spec("x")), NamedSharding(mesh, spec(None, "x"))
    x = jax.device_put(jnp.ones((64, 64)), rows)
    ways = moving(x, columns, count=100)
    table("eager dispatch", {"100 times f32[64, 64]": ways}, 4 * turns, time.thread_time)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.jax_overheads", description=__doc__)
    parts = {"compile": compiling, "trees": trees, "devices": devices, "eager": eager}
    parser.add_argument("part", nargs="*", choices=[*parts, []])
    parser.add_argument("--turns", type=int, default=4)
    options = parser.parse_args()
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=16"
    for part in options.part or parts:
        parts[part](options.turns)


if __name__ == "__main__":
    main()
