"""Weight-update sharding, as ZeRO has it: reduce_scatter, update a part, all_gather.

    python examples/jax_sharded_update.py

Plain data parallelism adds up the gradients on every device and updates the same weights, with the
same optimizer state, eight times over. Here each device gets the sum of its eighth, keeps the state
of it, and gathers the new weights; plans say how, and the result is that of one device.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import redistrib as rd
from redistrib.backends import jax as rjax

DEVICES, WIDTH, RATE, MOMENTUM = 8, 16, 0.1, 0.9


def loss(params: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    hidden = jnp.tanh(x @ params["in"])
    return ((hidden @ params["out"] - y) ** 2).mean()


def updated(
    weight: jax.Array, state: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    state = MOMENTUM * state + gradient
    return weight - RATE * state, state


def plans() -> tuple[rd.Plan, rd.Plan]:
    """Addends to rows of their sum, and rows to the whole array."""
    mesh = rd.Mesh(dp=DEVICES)
    addends, rows, replicated = (
        rd.ArrayType.parse(f"f32[{WIDTH}{factor}, {WIDTH}]{tail}", mesh)
        for factor, tail in (("", " sum{dp}"), ("{dp}", ""), ("", ""))
    )
    return rd.plan(addends, rows), rd.plan(rows, replicated)


def main() -> None:
    jax.config.update("jax_num_cpu_devices", DEVICES)
    mesh = jax.make_mesh((DEVICES,), ("dp",), axis_types=(AxisType.Auto,))
    scatter, gather = (rjax.tile_program(plan) for plan in plans())
    print([step.collective for plan in plans() for step in plan.steps])

    def step(params, states, x, y):  # on one device, with its part of the batch and of the states
        gradients = jax.grad(loss)(params, x, y)
        place = jax.lax.axis_index("dp")
        new_params, new_states = {}, {}
        for name, weight in params.items():
            summed = scatter(gradients[name] / DEVICES)
            part = jax.lax.dynamic_slice_in_dim(weight, place * len(summed), len(summed))
            part, new_states[name] = updated(part, states[name], summed)
            new_params[name] = gather(part)
        return new_params, new_states

    sharded = jax.jit(
        jax.shard_map(
            step,
            mesh=mesh,
            in_specs=(P(), P("dp"), P("dp"), P("dp")),
            out_specs=(P(), P("dp")),
            check_vma=False,
        )
    )
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=(WIDTH, WIDTH)).astype("f4") / 4 for name in ("in", "out")}
    states = {name: np.zeros_like(weight) for name, weight in params.items()}
    alone, alone_states = dict(params), dict(states)
    for _ in range(5):
        x, y = (rng.normal(size=(8 * DEVICES, WIDTH)).astype("f4") for _ in range(2))
        params, states = sharded(params, states, x, y)
        gradients = jax.grad(loss)(alone, x, y)
        both = {name: updated(alone[name], alone_states[name], gradients[name]) for name in alone}
        alone = {name: pair[0] for name, pair in both.items()}
        alone_states = {name: pair[1] for name, pair in both.items()}
    same = all(np.allclose(params[name], alone[name], atol=1e-5) for name in params)
    state = sum(s.addressable_shards[0].data.nbytes for s in states.values())
    print(f"state of {state} bytes a device; weights as on one device: {same}")


if __name__ == "__main__":
    main()
