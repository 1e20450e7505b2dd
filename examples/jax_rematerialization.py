"""From XLA's "Involuntary full rematerialization" to the least traffic, in one line.

    python examples/jax_rematerialization.py

The pair of layouts is that of jax#21562. XLA says on stderr that it replicates the array; the bytes
are those of the two compiled programs.
"""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from redistrib.backends import jax as rjax
from redistrib.interop.hlo_traffic import hlo_traffic


def main() -> None:
    jax.config.update("jax_num_cpu_devices", 8)
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Auto, AxisType.Auto))
    before, after = NamedSharding(mesh, P("y", None, "x")), NamedSharding(mesh, P(None, ("x", "y")))
    x = jax.device_put(jnp.arange(16.0**3).reshape(16, 16, 16), before)

    def step(x: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(jnp.sin(x), after)

    def loss(x: jax.Array) -> jax.Array:
        return (step(x) ** 2).sum()

    for label, function in (("forward", step), ("gradient", jax.grad(loss))):
        ours = rjax.optimize(function)  # the line
        for name, program in (("XLA", function), ("redistrib", ours)):
            compiled = jax.jit(program).lower(x).compile()
            traffic = hlo_traffic(compiled.as_text(), 8)
            print(
                f"{label:8} {name:9} receives {traffic.received_bytes:6} bytes a device, "
                f"largest buffer {traffic.largest_buffer_bytes} of {x.nbytes}"
            )
        print(f"{label:8} the same values: {jnp.allclose(jax.jit(ours)(x), jax.jit(function)(x))}")


if __name__ == "__main__":
    main()
