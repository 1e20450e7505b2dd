"""What a jax user compiles, for `bench.jax_overheads`: constraints one by one, and training steps.

`PROGRAMS` maps a name to a function and its arguments, shapes with their shardings, on a mesh of
x=4, y=2.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

P: Any = jax.sharding.PartitionSpec  # typed in parts only, as the next two
lay_out: Any = jax.lax.with_sharding_constraint
struct: Any = jax.ShapeDtypeStruct
MESH = jax.sharding.Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("x", "y"))


def at(*spec: Any) -> NamedSharding:
    return NamedSharding(MESH, P(*spec))


ROWS, TURNED = at("x", "y"), at("y", "x")


def like(*shape: int, dtype: Any = jnp.float32, sharding: Any = ROWS) -> Any:
    return struct(shape, dtype, sharding=sharding)


def unchanged(leaves: Any) -> Any:
    """Constraints to the layouts that there are."""
    return [lay_out(x + 1, ROWS) * 2 for x in leaves]


def changed(leaves: Any) -> Any:
    """Constraints that each move an array."""
    return [lay_out(x, TURNED) for x in leaves]


def unrolled(layers: Any, x: Any) -> Any:
    """A step of descent of layers one after the other, without a loop."""

    def loss(layers: Any) -> Any:
        h = x
        for up, down in layers:
            h = lay_out(jax.nn.softmax(lay_out(h @ h.T, at("x"))) @ h, ROWS)
            h = h + lay_out(jax.nn.gelu(h @ lay_out(up, TURNED)), ROWS) @ lay_out(down, TURNED)
        return (h**2).mean()

    value, grads = jax.value_and_grad(loss)(layers)
    return value, jax.tree.map(lambda p, g: lay_out(p - 0.1 * g, ROWS), layers, grads)


WORDS, WIDTH, HEADS, GROUPS, LAYERS = 64, 32, 4, 2, 4
PARAMS = {
    "embed": like(WORDS, WIDTH),
    "q": like(LAYERS, WIDTH, WIDTH, sharding=at(None, "x", "y")),
    "kv": like(LAYERS, WIDTH, 2 * WIDTH * GROUPS // HEADS, sharding=at(None, "x", "y")),
    "out": like(LAYERS, WIDTH, WIDTH, sharding=at(None, "y", "x")),
    "up": like(LAYERS, WIDTH, 4 * WIDTH, sharding=at(None, "x", "y")),
    "down": like(LAYERS, 4 * WIDTH, WIDTH, sharding=at(None, "y", "x")),
}


def attention(h: Any, p: Any) -> Any:
    """Two heads of queries to each of keys."""
    batch, time, width = h.shape
    q = (h @ p["q"]).reshape(batch, time, GROUPS, -1, width // HEADS)
    k, v = jnp.split((h @ p["kv"]).reshape(batch, time, 2 * GROUPS, -1), 2, 2)
    scores = jnp.einsum("btgqs,bugs->bgqtu", q, k) * k.shape[-1] ** -0.5
    weights = jax.nn.softmax(jnp.where(jnp.tri(time, dtype=bool), scores, -1e9))
    return jnp.einsum("bgqtu,bugs->btgqs", weights, v).reshape(h.shape) @ p["out"]


def transformer(params: Any, m: Any, v: Any, tokens: Any) -> Any:
    """A step of Adam of layers in a scan, each rematerialized, their weights gathered over x."""

    @jax.checkpoint
    def layer(h: Any, p: Any) -> Any:
        p = {
            name: lay_out(w, at("y") if name in ("out", "down") else at(None, "y"))
            for name, w in p.items()
        }
        h = lay_out(h + attention(h, p), at("x"))
        return lay_out(h + jax.nn.gelu(h @ p["up"]) @ p["down"], at("x")), None

    def loss(params: Any) -> Any:
        stacked = {name: w for name, w in params.items() if name != "embed"}
        h = lay_out(lay_out(params["embed"], at())[tokens], at("x"))
        h, _ = jax.lax.scan(layer, h, stacked)
        logits = jnp.einsum("btd,vd->btv", h, params["embed"])
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], -1)
        return -picked.mean()

    value, grads = jax.value_and_grad(loss)(params)
    grads = {name: lay_out(g, PARAMS[name].sharding) for name, g in grads.items()}
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
    v = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g * g, v, grads)
    new = jax.tree.map(lambda p, m, v: p - 0.1 * m / (jnp.sqrt(v) + 1e-3), params, m, v)
    return value, new, m, v


PROGRAMS = {
    "a constraint that changes nothing": (unchanged, ([like(64, 64)],)),
    "100 of them": (unchanged, ([like(64, 64)] * 100,)),
    "300 equal leaves": (changed, ([like(64, 64)] * 300,)),
    "four layers without a loop": (
        unrolled,
        ([(like(64, 256), like(256, 64))] * 4, like(64, 64)),
    ),
    "a transformer step": (
        transformer,
        (PARAMS, PARAMS, PARAMS, like(8, 16, dtype=jnp.int32, sharding=at("x"))),
    ),
}
