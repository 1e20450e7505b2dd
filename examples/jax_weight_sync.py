"""Weights from training to inference, on the same devices, within a memory budget.

    python examples/jax_weight_sync.py

As in reinforcement learning: a step of training, then the policy generates with the new weights.
Training has them sharded for FSDP and tensor parallelism; inference wants tensor parallelism alone,
with query, key and value in one array. The old arrays are given up one by one as the new ones come.
"""

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from redistrib.backends import jax as rjax

LAYERS, HIDDEN = 3, 64
WEIGHTS = """
layers.{i}.qkv = concat(0, layers.{i}.q, layers.{i}.k, layers.{i}.v)
layers.{i}.out = layers.{i}.out
"""


def main() -> None:
    jax.config.update("jax_num_cpu_devices", 8)
    train = jax.make_mesh((4, 2), ("fsdp", "tp"))
    serve = jax.make_mesh((8,), ("tp",))
    rng = np.random.default_rng(0)

    def array() -> np.ndarray:
        return rng.random((HIDDEN, HIDDEN), dtype="f4")

    host = {"layers": [{name: array() for name in ("q", "k", "v", "out")} for _ in range(LAYERS)]}
    params = jax.device_put(host, NamedSharding(train, P("tp", "fsdp")))

    wanted = {
        "qkv": NamedSharding(serve, P("tp", None)),
        "out": NamedSharding(serve, P(None, "tp")),
    }
    shardings = {"layers": [wanted] * LAYERS}
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    budget = 3 * total // 8  # bytes a device: the two sides are total / 8 each
    synced = rjax.reshard_tree(
        params, shardings, weights=WEIGHTS, memory_budget=budget, donate=True
    )

    right = all(
        np.array_equal(new["qkv"], np.concatenate([old["q"], old["k"], old["v"]]))
        and np.array_equal(new["out"], old["out"])
        for new, old in zip(synced["layers"], host["layers"], strict=True)
    )
    print(f"{LAYERS} layers, {total} bytes, at most {budget} a device: right {right}")


if __name__ == "__main__":
    main()
