"""A whole model from its training mesh to a server that fuses, renames and casts its weights.

    python examples/model_move.py

Four devices train, sharded by data (dp) and tensor (tp) parallelism; four others serve, with query,
key and value in one array and the two halves of the feed-forward stacked, in bfloat16. Runs in the
simulator, which counts what moves, and compares with the meaning of the weight map in numpy.
"""

import numpy as np

import redistrib as rd
from redistrib.backends import simulator

LAYERS, HIDDEN = 4, 16
TRAIN = rd.Mesh({"dp": 2, "tp": 2}, devices=range(4))
SERVE = rd.Mesh({"tp": 4}, devices=range(4, 8))
WEIGHTS = """
model.layers.{i}.qkv = cast(concat(0, dec.{i}.q, dec.{i}.k, dec.{i}.v), bf16)
model.layers.{i}.w13 = cast(stack(0, dec.{i}.gate, dec.{i}.up), bf16)
model.layers.{i}.out = cast(dec.{i}.out, bf16)
"""


def source_types() -> dict[str, tuple[str, rd.Mesh]]:
    """What the training program has: rows over tp, columns over dp, as FSDP leaves them."""
    rows, columns = f"f32[{HIDDEN}{{tp}}, {HIDDEN}{{dp}}]", f"f32[{HIDDEN}{{dp}}, {HIDDEN}{{tp}}]"
    return {
        f"dec.{layer}.{name}": (columns if name == "out" else rows, TRAIN)
        for layer in range(LAYERS)
        for name in ("q", "k", "v", "gate", "up", "out")
    }


def target_types() -> dict[str, tuple[str, rd.Mesh]]:
    """What the server wants: each device its part of q, of k and of v, one after the other."""
    part = f"{HIDDEN}{{tp}}"
    return {
        name: (text, SERVE)
        for layer in range(LAYERS)
        for name, text in (
            (f"model.layers.{layer}.qkv", f"bf16[{part}|{part}|{part}, {HIDDEN}]"),
            (f"model.layers.{layer}.w13", f"bf16[2, {part}, {HIDDEN}]"),
            (f"model.layers.{layer}.out", f"bf16[{HIDDEN}, {part}]"),
        )
    }


def main() -> None:
    weights = rd.WeightMap.parse(WEIGHTS)
    plan = rd.plan_model(source_types(), target_types(), weights=weights, memory_budget="64KiB")
    rd.check(plan)  # every element of every target is written once, from the right place
    print(plan)

    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(-99, 99, t.shape).astype("f4") for name, t in plan.src.items()}
    moved = simulator.run_model(plan, simulator.scatter_model(arrays, plan.src))
    meant = simulator.scatter_model(weights(arrays), plan.dst)
    right = all(
        np.array_equal(tile, moved[device][name])
        for device, tiles in meant.items()
        for name, tile in tiles.items()
    )
    print(f"every tile as the weight map says: {right}")


if __name__ == "__main__":
    main()
