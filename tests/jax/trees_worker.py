"""The cases of test_trees.py, run in one process with 16 virtual devices."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import redistrib as rd
from redistrib.backends import jax as rjax
from redistrib.backends import simulator
from redistrib.backends.jax import between, internals
from redistrib.backends.jax.host_copies import Array, Key, host_copies
from redistrib.models.segments import AnyType
from redistrib.types.dtypes import numpy_dtype
from redistrib.types.tile import same_bits
from tests.models.random_moves import Case, random_case
from tests.worker import Cases

case = Cases()
DEVICES = jax.devices()


def stacked(t: AnyType) -> NamedSharding:
    """Where the tiles of a type are; that they differ nobody asks."""
    mesh = jax.sharding.Mesh([DEVICES[n] for n in t.mesh.ids], "d")
    return NamedSharding(mesh, P("d") if t.tile_shape else P())


def run_one_program(seed: int) -> None:
    """A random move by one program: the simulator's tiles."""
    found = random_case(seed, ranks=16)
    plan, wanted = found.plan, simulator.run_model(found.plan, scattered(found))
    held = reduced(found)
    arrays = {}
    for name in plan.src:
        end = stacked(plan.source_type(name))
        read = Array(name, is_target=False)
        tiles = [jax.device_put(held[read, d.id], d) for d in end.mesh.devices.flat]
        arrays[read] = internals.global_array(
            tiles[0].shape, tiles[0].dtype, weak_type=False, sharding=end, tiles=tiles
        )
    for move in plan.moves:
        t = plan.dst[move.target]
        sources = {read: arrays[read].sharding for read in between.inputs_of(move)}
        result = between.Result(stacked(t), numpy_dtype(t.dtype))
        run = between.between(plan, [move], sources, {move.target: result}, most=64)
        made = Array(move.target, is_target=True)
        (arrays[made],) = run(arrays)
        for device, tile in zip(t.mesh.ids, internals.shards(arrays[made]), strict=True):
            assert same_bits(np.asarray(tile), wanted[device][move.target]), (seed, move.target)


def scattered(found: Case) -> simulator.models.Tiles:
    return simulator.scatter_model(found.arrays, found.plan.src)


def reduced(found: Case) -> dict[Key, np.ndarray]:
    """The tiles of the sources, with partial sums reduced."""
    tiles = scattered(found)
    for name, reduction in found.plan.reductions.items():
        ids = reduction.src.mesh.ids
        done = simulator.run(reduction, [tiles[n][name] for n in ids])
        for device, tile in zip(ids, done, strict=True):
            tiles[device][name] = tile
    return {
        (Array(name, is_target=False), device): np.ascontiguousarray(tile)
        for device, own in tiles.items()
        for name, tile in own.items()
    }


@case
def random_moves_by_copies_in_memory() -> None:
    for seed in range(100):
        found = random_case(seed, ranks=16)
        plan, wanted = found.plan, simulator.run_model(found.plan, scattered(found))
        tiles = reduced(found)
        for move in plan.moves:
            tiles |= host_copies(plan, [move]).run(tiles)
            for device in plan.dst[move.target].mesh.ids:
                own = wanted[device][move.target]
                tile = tiles[Array(move.target, is_target=True), device]
                assert same_bits(tile, own), (seed, move.target)


@case
def random_moves_by_one_program() -> None:
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(between, "in_memory", lambda _: False)
        for seed in range(4):
            run_one_program(seed)


def mesh_of(kind: AxisType = AxisType.Auto, first: int = 0, **axes: int) -> Mesh:
    sizes = [*axes.values()]
    chosen = np.array(DEVICES[first : first + int(np.prod(sizes))]).reshape(sizes)
    return Mesh(chosen, tuple(axes), axis_types=(kind,) * len(axes))


def on(mesh: Mesh, *spec: Any) -> NamedSharding:
    return NamedSharding(mesh, P(*spec))


def numbers(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return (np.arange(np.prod(shape)) % 251).reshape(shape).astype(dtype)


def assert_same(ours: Any, plain: Any) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(plain)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        assert (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding)
        assert jax.typeof(a).weak_type == jax.typeof(b).weak_type
        keys = jnp.issubdtype(a.dtype, jax.dtypes.extended)
        assert same_bits(*(np.asarray(jax.random.key_data(x) if keys else x) for x in (a, b)))


def layers(end: NamedSharding, count: int = 5) -> dict[str, Any]:
    """Layers of two large arrays and a small one; the embedding is also the head."""
    embed = jax.device_put(numbers(64, 16), end)
    return {
        "embed": embed,
        "layers": [
            {
                "q": jax.device_put(numbers(16, 16, dtype=jnp.bfloat16) + n, end),
                "norm": jax.device_put(numbers(16) + n, end),
            }
            for n in range(count)
        ],
        "head": embed,
        "rate": jax.device_put(jnp.asarray(0.5), NamedSharding(end.mesh, P())),
    }


@case
def trees_move_as_plain_jax_moves_them() -> None:
    for kind in (AxisType.Auto, AxisType.Explicit):
        tree = layers(on(mesh_of(kind, x=4, y=2), "x"))
        ring = Mesh(np.array(DEVICES)[[0, 1, 3, 2, 6, 7, 5, 4]], "z", axis_types=(kind,))
        for target in (
            on(mesh_of(kind, x=4, y=2), ("y", "x")),
            on(mesh_of(kind, a=2, b=4), "a"),
            on(mesh_of(kind, z=8), "z"),
            on(ring, "z"),
            on(mesh_of(kind, first=8, z=4), "z"),
        ):
            ends = jax.tree.map(lambda x, end=target: end if x.ndim else on(end.mesh), tree)
            moved = rjax.reshard_tree(tree, ends)
            assert_same(moved, jax.device_put(tree, ends))
            assert moved["embed"] is moved["head"]
    # Small arrays are stacked, with a NaN whose bits XLA changes where it widens a float.
    signalling = np.full((8, 8), 0x7F81, np.uint16).view(jnp.bfloat16)
    small = [jax.device_put(signalling, on(mesh_of(x=4), "x")) for _ in range(3)]
    assert_same(
        rjax.reshard_tree(small, on(mesh_of(x=4), None, "x")),
        jax.device_put(small, on(mesh_of(x=4), None, "x")),
    )
    mixed = [np.arange(8), 3, jax.random.key(0), jnp.arange(8), jnp.arange(8, dtype="int4")]
    end = on(mesh_of(x=4))
    assert_same(rjax.reshard_tree(mixed, end), jax.device_put(mixed, end))
    inside = jax.jit(lambda tree: rjax.reshard_tree(tree, on(mesh_of(x=4, y=2), "y")))
    some = layers(on(mesh_of(x=4, y=2), "x"))["layers"]
    assert_same(inside(some), jax.device_put(some, on(mesh_of(x=4, y=2), "y")))


@case
def equal_moves_are_one_program_and_another_tree_is_none() -> None:
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    mesh = mesh_of(x=8)
    trees = [layers(on(mesh, "x"), count=32) for _ in range(2)]
    rows = jax.tree.map(lambda x: on(mesh, None, "x") if x.ndim == 2 else on(mesh), trees[0])
    compiled.clear()
    moved = rjax.reshard_tree(trees[0], rows)
    assert len(compiled) == 3  # embed, q, norm
    compiled.clear()
    assert_same(rjax.reshard_tree(trees[1], rows), moved)
    assert not compiled


def live(platform: str = "cpu") -> int:
    """Bytes that the worst device holds, of buffers that jax knows."""
    held: dict[int, dict[int, int]] = {}
    for x in jax.live_arrays(platform):
        for shard in internals.shards(x):
            device = next(iter(shard.devices())).id
            held.setdefault(device, {})[shard.unsafe_buffer_pointer()] = shard.nbytes
    return max((sum(buffers.values()) for buffers in held.values()), default=0)


@case
def a_budget_holds_at_every_moment() -> None:
    count, size = 12, 256
    here, there = mesh_of(x=8), mesh_of(first=8, x=8)
    for mesh, dtype in ((here, np.float32), (here, jnp.bfloat16), (there, np.float32)):
        tile = size * size * np.dtype(dtype).itemsize // 8
        before = live()
        array = numbers(size, size, dtype=dtype)
        tree = [jax.device_put(array, on(here, "x")) for _ in range(count)]
        target = on(mesh, None, "x")
        with pytest.raises(rd.InfeasibleError, match=r"the memory budget is 1024") as refused:
            rjax.reshard_tree(tree, target, memory_budget=1024, donate=True)
        assert not any(x.is_deleted() for x in tree)
        budget = refused.value.least_bytes
        # The sources and a target; on one mesh also what the program allocates.
        least = count + (mesh.devices[0] == DEVICES[0])
        assert least * tile < budget + 1 <= 1.15 * count * tile + 1
        assert (budget > least * tile) == (mesh.devices[0] == DEVICES[0])
        with pytest.raises(rd.InfeasibleError, match=f"with {budget} bytes"):
            rjax.reshard_tree(tree, target, memory_budget=budget - 1, donate=True)
        seen: list[int] = []
        wanted = np.asarray(tree[0])
        moved = rjax.reshard_tree(
            tree,
            target,
            memory_budget=budget,
            donate=True,
            progress=lambda _, s=seen: s.append(live()),
        )
        assert max(seen) - before <= budget
        assert len(seen) > 1
        assert all(x.is_deleted() for x in tree)
        assert all(same_bits(np.asarray(x), wanted) for x in moved)
        del moved, tree


@case
def sums_over_devices_go_to_other_devices() -> None:
    """One device of a sum has the value, and the others nothing to add."""
    x = jax.device_put(numbers(8, 4), on(mesh_of(AxisType.Explicit, x=4), "x"))
    end = NamedSharding(mesh_of(AxisType.Explicit, first=8, z=2, y=2), P("y", unreduced={"z"}))
    for moved in (rjax.reshard(x, end), rjax.reshard_tree([x], end)[0]):
        assert moved.sharding == end
        tiles = [np.asarray(tile) for tile in internals.shards(moved)]
        for row in range(2):
            own = numbers(8, 4)[4 * row : 4 * row + 4]
            assert same_bits(tiles[row] + tiles[row + 2], own)
            assert not tiles[row].any() or not tiles[row + 2].any()


@case
def a_weight_map_makes_other_arrays() -> None:
    text = """
        blocks.{i}.qkv = concat(0, layers.{i}.q, layers.{i}.k)
        out = cast(rearrange(embed, "a b -> b a"), bf16)
        tied = cast(rearrange(embed, "a b -> b a"), bf16)
    """
    source = on(mesh_of(x=8), "x")
    arrays = {"embed": numbers(16, 8)} | {
        f"layers.{i}.{name}": numbers(16, 8) + i for i in range(3) for name in "qk"
    }
    put = {name: jax.device_put(array, source) for name, array in arrays.items()}
    tree = {
        "embed": put["embed"],
        "layers": [{name: put[f"layers.{i}.{name}"] for name in "qk"} for i in range(3)],
    }
    meant = rd.WeightMap.parse(text)(arrays)
    for mesh in (mesh_of(a=4, b=2), mesh_of(first=6, a=5, b=2)):
        a = "a" if mesh.shape["a"] == 4 else "b"
        ends = {
            "blocks": [{"qkv": on(mesh, a)} for _ in range(3)],
            "out": on(mesh, a, None),
            "tied": on(mesh, a, None),
        }
        moved = rjax.reshard_tree(tree, ends, weights=text)
        wanted = {
            "blocks": [
                {"qkv": jax.device_put(meant[f"blocks.{i}.qkv"], on(mesh, a))} for i in range(3)
            ],
            "out": jax.device_put(meant["out"], ends["out"]),
            "tied": jax.device_put(meant["tied"], ends["tied"]),
        }
        assert_same(moved, wanted)


@case
def errors_name_the_array_and_come_before_anything_moves() -> None:
    mesh = mesh_of(x=8)
    tree = {"a": jax.device_put(numbers(16, 16), on(mesh, "x")), "b": [jnp.ones((9, 3))]}
    for error, message, call in (
        (
            rd.LayoutError,
            r"at \['b'\]\[0\]: .*with product 8",
            lambda: rjax.reshard_tree(tree, on(mesh, "x"), donate=True),
        ),
        (
            rd.LayoutError,
            "shardings are one for all",
            lambda: rjax.reshard_tree(tree, {"a": on(mesh)}),
        ),
        (
            rd.LayoutError,
            "is made by a rule of the map, or is the source of its name; c is neither",
            lambda: rjax.reshard_tree({"a": tree["a"]}, {"c": on(mesh)}, weights=""),
        ),
        (
            rd.BackendError,
            "inside jit a tree moves as by `reshard`",
            lambda: jax.jit(lambda t: rjax.reshard_tree(t, on(mesh), memory_budget=9))(tree),
        ),
    ):
        with pytest.raises(error, match=message):
            call()
    assert not tree["a"].is_deleted()
    gone = jnp.ones((8, 8))
    gone.delete()
    with pytest.raises(rd.BackendError, match=r"at \['g'\]: .* this one is deleted"):
        rjax.reshard_tree({"a": tree["a"], "g": gone}, on(mesh), donate=True)
    assert not tree["a"].is_deleted()


@case
def progress_is_said() -> None:
    mesh = mesh_of(x=8)
    tree = [jax.device_put(numbers(64, 8 * n), on(mesh, "x")) for n in range(1, 6)]
    said: list[rjax.Progress] = []
    rjax.reshard_tree(tree, on(mesh, None, "x"), progress=said.append)
    assert [report.arrays for report in said] == [1, 2, 3, 4, 5]
    assert said[-1].moved_bytes == said[-1].of_bytes == sum(x.nbytes for x in tree)


if __name__ == "__main__":
    case.main()
