"""The cases of test_conformance.py, run in one process with 8 virtual devices.

Programs as people write them, jitted by jax and by `optimize`: the same values, dtypes, weak types
and devices, and the layouts that were asked for. Where partial sums may be added up in another
order, numbers of few digits make every order exact, or the last digits are let differ.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.lax import with_sharding_constraint
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from redistrib.backends import jax as rjax
from redistrib.types.tile import same_bits
from tests.jax import behaviours, primitives
from tests.partition.in_jax import verify_tactics
from tests.repetitions import repetitions
from tests.worker import Cases

case = Cases()
DEVICES = np.array(jax.devices()[:8])
MESH = Mesh(DEVICES.reshape(2, 4), ("data", "model"))
OTHER = Mesh(DEVICES.reshape(4, 2), ("a", "b"))
EXPLICIT = Mesh(DEVICES.reshape(2, 4), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)


def at(*spec: Any, mesh: Mesh = MESH) -> NamedSharding:
    return NamedSharding(mesh, P(*spec))


def put(array: Any, *spec: Any, mesh: Mesh = MESH) -> jax.Array:
    return jax.device_put(jnp.asarray(array), at(*spec, mesh=mesh))


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Multiples of 1/8 between -1 and 1."""
    drawn = np.random.default_rng(seed).integers(-8, 9, shape)
    return (drawn / 8).astype(np.float32)


def compare(
    function: Callable[..., Any], *args: Any, exact: bool = True, asked: bool = True, **options: Any
) -> None:
    """Assert that `optimize` gives what `jax.jit` gives; `asked`: layouts too."""
    plain, ours = (jit(function, **options)(*args) for jit in (jax.jit, rjax.optimize))
    assert jax.tree.structure(plain) == jax.tree.structure(ours)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert jax.typeof(a).weak_type == jax.typeof(b).weak_type
        assert a.sharding.device_set == b.sharding.device_set
        if asked:
            assert a.sharding.is_equivalent_to(b.sharding, a.ndim), (a.sharding, b.sharding)
        keys = jnp.issubdtype(a.dtype, jax.dtypes.extended)
        mine, theirs = (np.asarray(jax.random.key_data(x) if keys else x) for x in (a, b))
        if exact:
            assert same_bits(mine, theirs)
        else:
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


def adam(grads: Any, state: Any, params: Any) -> Any:
    """One step of Adam, with its count as optax has it."""
    count = state["count"] + 1
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state["m"], grads)
    v = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g * g, state["v"], grads)
    rate = 0.1 / (1 - 0.9**count)
    new = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-3), params, m, v)
    return new, {"count": count, "m": m, "v": v}


class Transformer:
    """Two heads of queries to each of keys; every layer rematerialised, all in one scan."""

    vocabulary, width, heads, groups, layers, length = 32, 16, 4, 2, 2, 8

    def params(self, mesh: Mesh) -> dict[str, Any]:
        n, w, kv = self.layers, self.width, self.width * self.groups // self.heads
        return {
            "embed": put(numbers(self.vocabulary, w), "model", mesh=mesh),
            "q": put(numbers(n, w, w, seed=1), None, "data", "model", mesh=mesh),
            "kv": put(numbers(n, w, 2 * kv, seed=2), None, "data", "model", mesh=mesh),
            "out": put(numbers(n, w, w, seed=3), None, "model", "data", mesh=mesh),
            "up": put(numbers(n, w, 2 * w, seed=4), None, "data", "model", mesh=mesh),
            "down": put(numbers(n, 2 * w, w, seed=5), None, "model", "data", mesh=mesh),
        }

    def loss(self, params: dict[str, Any], tokens: jax.Array, lay_out: Any) -> jax.Array:
        h = lay_out(params["embed"], P())[tokens]

        @jax.checkpoint
        def layer(h: jax.Array, p: dict[str, Any]) -> Any:
            h = lay_out(h, P("data", None, None))
            p = {name: lay_out(w, P(None, "model")) for name, w in p.items()}
            h = h + lay_out(self.attention(h, p), P("data", None, None))
            mlp = jax.nn.relu(h @ p["up"]) @ lay_out(p["down"], P("model", None))
            return lay_out(h + mlp, P("data", None, None)), None

        stacked = {name: w for name, w in params.items() if name != "embed"}
        h, _ = jax.lax.scan(layer, lay_out(h, P("data", None, None)), stacked)
        logits = jnp.einsum("btd,vd->btv", h, params["embed"])
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], -1)
        return -picked.mean()

    def attention(self, h: jax.Array, p: dict[str, Any]) -> jax.Array:
        b, t, w = h.shape
        size = w // self.heads
        q = (h @ p["q"]).reshape(b, t, self.groups, -1, size)
        k, v = jnp.split((h @ p["kv"]).reshape(b, t, 2 * self.groups, size), 2, 2)
        scores = jnp.einsum("btgqs,bugs->bgqtu", q, k) * size**-0.5
        weights = jax.nn.softmax(jnp.where(jnp.tri(t, dtype=bool), scores, -1e9))
        return jnp.einsum("bgqtu,bugs->btgqs", weights, v).reshape(b, t, w) @ p["out"]

    def step(self, params: Any, state: Any, tokens: Any) -> Any:
        def lay_out(x: Any, spec: Any) -> Any:
            return with_sharding_constraint(x, NamedSharding(MESH, spec))

        loss, grads = jax.value_and_grad(self.loss)(params, tokens, lay_out)
        specs = jax.tree.map(lambda p: p.sharding.spec, SHARDED)
        new, state = adam(grads, state, params)
        return loss, jax.tree.map(lay_out, new, specs), state


SHARDED = Transformer().params(MESH)


@case
def a_transformer_step_with_an_embedding_and_adam() -> None:
    model = Transformer()
    params = SHARDED
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = {"count": jnp.asarray(0), "m": zeros, "v": zeros}
    tokens = put(np.arange(32).reshape(4, 8) % 7, "data")
    compare(model.step, params, state, tokens, exact=False, asked=False)
    compare(lambda w, i: w[i], params["embed"], tokens)


@case
def a_convnet_with_its_gradient() -> None:
    images, kernel = put(numbers(4, 3, 8, 8), "data"), put(numbers(8, 3, 3, 3), "model")

    def loss(kernel: jax.Array, images: jax.Array) -> jax.Array:
        features = jax.lax.conv(images, kernel, (1, 1), "SAME")
        features = with_sharding_constraint(jax.nn.relu(features), at("data", "model"))
        pooled = jax.lax.reduce_window(
            features, 0.0, jax.lax.add, (1, 1, 2, 2), (1, 1, 2, 2), "VALID"
        )
        return (with_sharding_constraint(pooled, at(None, "data", "model")) ** 2).sum()

    compare(jax.value_and_grad(loss), kernel, images, exact=False, asked=False)


@case
def primitives_each_in_a_call() -> None:
    assert not primitives.missing()
    every = [*primitives.CALLS]
    for first in range(repetitions(1, 6)):
        assert not primitives.differences(every[(first + 1) % 6 :: 6])


@case
def what_jax_documents_of_jit_and_shard_map() -> None:
    every = [*behaviours.PROGRAMS]
    for first in range(repetitions(1, 4)):
        assert not [found for name in every[first::4] if (found := behaviours.difference(name))]


@case
def windowed_reductions_of_several_are_laid_out_as_in_plain_jax() -> None:
    """Else XLA's partitioner takes the process down, or finds tiles of two shapes."""
    x, y = put(numbers(8, 8), "data", "model"), put(numbers(8, 8, seed=1), "data", "model")

    def highest(x: jax.Array) -> jax.Array:
        return jax.lax.reduce_window(x, -np.inf, jax.lax.max, (2, 2), (2, 2), "VALID")

    def slopes(x: jax.Array, y: jax.Array, spec: Any, before: Any, around: Any) -> Any:
        tiles = jax.shard_map(lambda t: t * 2, mesh=MESH, in_specs=spec, out_specs=spec)
        x, y = (with_sharding_constraint(value, at("model")) for value in (x, y))
        pair = jax.jvp(around(highest), (before(x),), (before(y),))
        ends = jax.tree.map(lambda v: with_sharding_constraint(jnp.sin(v), at("model")), pair)
        return ends, tiles(x)

    programs = (
        (P("data"), lambda x: x * 2, jax.jit),
        (P(None, "model"), lambda x: x, lambda f: f),
    )
    for spec, before, around in programs[: repetitions(1, 2)]:
        compare(partial(slopes, spec=spec, before=before, around=around), x, y)


@case
def dropout_in_a_rematerialized_scan() -> None:
    x, weights = put(numbers(8, 16), "data"), put(numbers(3, 16, 16, seed=1), None, None, "model")

    def loss(weights: jax.Array, x: jax.Array) -> jax.Array:
        @jax.checkpoint
        def layer(h: jax.Array, given: Any) -> Any:
            w, key = given
            h = with_sharding_constraint(jax.nn.relu(h @ w), at("data", "model"))
            kept = jax.random.bernoulli(key, 0.5, h.shape)
            return with_sharding_constraint(jnp.where(kept, h / 0.5, 0), at("data")), None

        keys = jax.random.split(jax.random.key(0), 3)
        return (jax.lax.scan(layer, x, (weights, keys))[0] ** 2).sum()

    compare(jax.value_and_grad(loss), weights, x, exact=False, asked=False)


@case
def a_training_step_with_explicit_axes() -> None:
    def end(*spec: Any) -> NamedSharding:
        return at(*spec, mesh=EXPLICIT)

    table = put(numbers(16, 8), "model", mesh=EXPLICIT)
    up = put(numbers(8, 16, seed=1), None, "model", mesh=EXPLICIT)
    tokens = put(np.arange(8) % 5, "data", mesh=EXPLICIT)

    def loss(params: Any, tokens: jax.Array) -> jax.Array:
        table, up = params
        h = jax.sharding.reshard(table, end()).at[tokens].get(out_sharding=end("data"))
        h = jax.nn.relu(jnp.einsum("bd,df->bf", h, up, out_sharding=end("data", "model")))
        h = jax.sharding.reshard(h, end("data", None))
        logits = jnp.einsum(
            "bf,df->bd", h, jax.sharding.reshard(up, end()), out_sharding=end("data")
        )
        return (logits**2).sum()

    def step(params: Any, state: Any, tokens: jax.Array) -> Any:
        value, grads = jax.value_and_grad(loss)(params, tokens)
        return value, *adam(grads, state, params)

    params = (table, up)
    zeros = jax.tree.map(jnp.zeros_like, params)
    with jax.set_mesh(EXPLICIT):
        compare(
            step, params, {"count": jnp.asarray(0), "m": zeros, "v": zeros}, tokens, exact=False
        )


@case
def values_that_are_constrained_together_are_one_call() -> None:
    # XLA takes 8 ms to read one. Equal small arrays move as one, with all their bits.
    there, back = P("data", "model"), P("model", "data")
    signalling = np.full((8, 8), 0x7F81, np.uint16).view(jnp.bfloat16)
    integers, large = np.arange(64, dtype=np.int8).reshape(8, 8), np.ones((256, 512), np.float32)
    every = [*[signalling, integers, large] * 9, np.float32(1)]

    def end(x: Any, spec: Any) -> NamedSharding:
        return NamedSharding(MESH, spec if x.ndim else P())

    def lay_out(arrays: list[jax.Array], spec: Any) -> list[jax.Array]:
        return [with_sharding_constraint(x, end(x, spec)) for x in arrays]

    arrays = [jax.device_put(array, end(array, back)) for array in every]
    program = rjax.optimize(lambda arrays: lay_out(lay_out(arrays, there), back))
    lowered = program.lower(arrays)
    assert lowered.as_text().count("@redistribute(") == 3 * -(-28 // 16)
    compiled = lowered.compile()
    for moved, array in zip(compiled(arrays), arrays, strict=True):
        assert same_bits(np.asarray(moved), np.asarray(array))
    # A limit is for the tile of one array, here of eight elements.
    limited = rjax.optimize(lambda x: lay_out(x, there), memory_limit=16)
    few = limited.lower(arrays[:27:3]).compile()
    assert "concatenate" not in few.as_text(), "none are stacked"
    for moved in few(arrays[:27:3]):
        assert same_bits(np.asarray(moved), signalling)
    chain = rjax.optimize(lambda x: lay_out(lay_out(x, there)[:1], back))
    assert chain.lower(arrays).as_text().count("@redistribute(") == 3


@case
def loops_are_laid_out_as_their_constraints_say() -> None:
    x = put(numbers(8, 8), "data", "model")
    there = at("model")

    def body(c: jax.Array) -> jax.Array:
        return with_sharding_constraint(c * 2, there)

    compare(lambda x: jax.lax.scan(lambda c, _: (body(c), None), x, None, length=2)[0], x)
    compare(lambda x: jax.lax.fori_loop(0, 3, lambda _, c: body(c), x), x)
    compare(lambda x: jax.lax.while_loop(lambda c: c.sum() < 99, body, jnp.abs(x)), x)
    compare(lambda x: jax.lax.cond(x[0, 0] > 0, body, lambda x: body(x) + 1, x), x, asked=False)
    compare(lambda x: jax.lax.switch(1, [body, lambda x: body(-x)], x), x)
    compare(lambda x: [y := body(x), with_sharding_constraint(y, at(None, "data"))], x)
    remat = jax.checkpoint(lambda x: (jnp.maximum(body(x), 0) ** 2).sum())
    compare(jax.value_and_grad(remat), x, asked=False)
    nested = jax.jit(lambda x: jax.lax.fori_loop(0, 2, lambda _, c: jax.jit(body)(c), x))
    compare(nested, x)


@case
def functions_with_their_own_derivatives() -> None:
    @jax.custom_vjp
    def clipped(x: jax.Array) -> jax.Array:
        return with_sharding_constraint(x, at("model"))

    clipped.defvjp(
        lambda x: (clipped(x), x),
        lambda x, ct: (with_sharding_constraint(jnp.where(x > 0, ct, 0), at(None, "data")),),
    )
    x = put(numbers(8, 8), "data", "model")
    compare(clipped, x)
    compare(jax.grad(lambda x: (clipped(x) ** 2).sum()), x, asked=False)

    def of_row(row: jax.Array) -> jax.Array:
        return (jax.nn.relu(with_sharding_constraint(row, at("model"))) * row).sum()

    compare(jax.vmap(jax.grad(of_row)), x, asked=False)


@case
def experts_and_their_dispatch() -> None:
    tokens, gate = put(numbers(16, 8), "data"), put(numbers(8, 4, seed=1))
    experts = put(numbers(4, 8, 8, seed=2), "model")

    def layer(tokens: jax.Array, gate: jax.Array, experts: jax.Array) -> jax.Array:
        chosen = jax.lax.top_k(tokens @ gate, 2)[1]
        place = jnp.cumsum(jax.nn.one_hot(chosen, 4).reshape(32, 4), 0)[
            jnp.arange(32), chosen.ravel()
        ]
        slot = place.astype(int) - 1
        sent = jnp.zeros((4, 16, 8)).at[chosen.ravel(), slot].add(jnp.repeat(tokens, 2, 0))
        sent = with_sharding_constraint(sent, at("model"))
        done = with_sharding_constraint(jnp.einsum("ecd,edf->ecf", sent, experts), at(None, "data"))
        return done[chosen.ravel(), slot].reshape(16, 2, 8).sum(1)

    compare(layer, tokens, gate, experts, asked=False)
    loss = jax.grad(lambda experts: (layer(tokens, gate, experts) ** 2).sum())
    compare(loss, experts, asked=False, exact=False)


@case
def solves_and_factorizations() -> None:
    x = put(numbers(8, 8), "data", "model")

    def solved(x: jax.Array) -> Any:
        square = with_sharding_constraint(x @ x.T + 99 * jnp.eye(8), at("model"))
        factor = jnp.linalg.cholesky(square)
        return (
            jnp.linalg.solve(square, x),
            factor,
            jnp.linalg.inv(with_sharding_constraint(square, at())),
        )

    compare(solved, x, exact=False, asked=False)
    compare(jax.grad(lambda x: solved(x)[0].sum()), x, exact=False, asked=False)
    compare(lambda x: jnp.sort(with_sharding_constraint(x, at("model")), axis=0), x, asked=False)


@case
def random_keys_of_both_kinds() -> None:
    keys = put(jax.random.split(jax.random.key(0), 8), "data")

    def drawn(keys: jax.Array) -> Any:
        keys = with_sharding_constraint(keys, at("model"))
        return keys, jax.vmap(partial(jax.random.normal, shape=(4,)))(keys)

    compare(drawn, keys, asked=False)
    compare(
        lambda x: x + jax.random.normal(jax.random.split(jax.random.PRNGKey(1))[0], (8, 8)),
        put(numbers(8, 8), "data"),
        asked=False,
    )
    explicit = put(jax.random.split(jax.random.key(0), 8), "data", mesh=EXPLICIT)
    compare(lambda keys: jax.sharding.reshard(keys, at("model", mesh=EXPLICIT)), explicit)


@case
def meshes_with_explicit_axes_and_regions_without() -> None:
    x = put(numbers(8, 8), "data", "model", mesh=EXPLICIT)
    swapped = Mesh(DEVICES.reshape(4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)

    def inside(x: jax.Array) -> jax.Array:
        return with_sharding_constraint(2 * x, P("model"))

    with jax.set_mesh(EXPLICIT):
        compare(lambda x: jax.sharding.reshard(x + 1, P("model", "data")), x)
        compare(jax.sharding.auto_axes(inside, out_sharding=P("model", "data")), x)
        part = jax.sharding.auto_axes(inside, axes="model", out_sharding=P(None, "model"))
        compare(part, put(numbers(8, 8), None, "model", mesh=EXPLICIT))
    compare(lambda x: jax.sharding.reshard(x + 1, at("data", "model", mesh=swapped)), x)
    y = put(numbers(8, 8), "data", "model")
    with jax.set_mesh(MESH):
        explicit = jax.sharding.explicit_axes(
            lambda x: jax.sharding.reshard(2 * x, P("model")), in_sharding=P("data", "model")
        )
        compare(explicit, y)


@case
def constraints_on_two_meshes_and_odd_element_types() -> None:
    x = put(numbers(8, 8), "data", "model")

    def both(x: jax.Array) -> jax.Array:
        y = with_sharding_constraint(2 * x, at("b", "a", mesh=OTHER))
        return with_sharding_constraint(y + 1, at("model"))

    compare(both, x, asked=False)  # jax itself gives the mesh of one to the layout of the other
    for name in ("int4", "float8_e4m3b11fnuz", "float8_e4m3fn", "bfloat16", "bool"):
        compare(lambda x, n=name: with_sharding_constraint(x.astype(n), at("model")), x)
    host = at("model").with_memory_kind("pinned_host")
    compare(lambda x: with_sharding_constraint(x, host), x)
    compare(lambda x: with_sharding_constraint(x, at(P.UNCONSTRAINED, "data")), x)
    compare(
        lambda x, rate: with_sharding_constraint(x, at("model")) * rate, x.astype(jnp.bfloat16), 0.5
    )


@case
def pipelines_in_a_shard_map_of_some_axes() -> None:
    x = put(numbers(8, 8), "data", "model")

    def stage(x: jax.Array) -> jax.Array:
        x = with_sharding_constraint(x, P(None, "model"))
        return jax.lax.ppermute(x, "data", [(0, 1), (1, 0)])

    def pipeline(x: jax.Array) -> jax.Array:
        x = with_sharding_constraint(x, at("data"))
        shifted = jax.shard_map(stage, in_specs=P("data"), out_specs=P("data"), axis_names={"data"})
        return with_sharding_constraint(shifted(x), at("model"))

    with jax.set_mesh(MESH):
        compare(pipeline, x)


@case
def ahead_of_time_donated_exported_and_under_another_partitioner() -> None:
    x, target = put(numbers(8, 8), "data", "model"), at("model", "data")

    def scaled(x: jax.Array, by: int) -> jax.Array:
        return with_sharding_constraint(x * by, target)

    compare(scaled, x, 3, static_argnums=1)
    wanted = numbers(8, 8) * 3
    optimized = rjax.optimize(scaled, static_argnums=1, donate_argnums=0)
    like = jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
    assert same_bits(np.asarray(optimized.lower(like, 3).compile()(x + 0)), wanted)
    given = x + 0
    assert same_bits(np.asarray(optimized(given, 3)), wanted)
    assert given.is_deleted()
    saved = export.export(
        rjax.optimize(lambda x: scaled(x, 3)),
        disabled_checks=[export.DisabledSafetyCheck.custom_call("redistribute")],
    )(x)
    assert same_bits(np.asarray(jax.jit(saved.call)(x)), wanted)
    program = rjax.optimize(lambda x: scaled(x, 3))
    for shardy in (True, False, True):
        jax.config.update("jax_use_shardy_partitioner", shardy)
        assert same_bits(np.asarray(program(x)), wanted)


@case
def tactics_move_what_compiled_programs_do() -> None:
    verify_tactics()


if __name__ == "__main__":
    case.main()
