"""Whole models on public configurations: bytes against their bounds, and planning time.

    python -m bench.models              prints the table of docs/models.md

Names, fused layouts and shapes are those of the public programs: Hugging Face names in, vLLM's
per-rank `cat(q, k, v)` and w13 out, Megatron's grouped QKV, experts stacked or one array each.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np

from redistrib.cli.model import m2n_lines
from redistrib.models.loads import Load, load_of
from redistrib.models.model_plan import ModelPlan, plan_model
from redistrib.models.schedule import narrowest
from redistrib.models.segments import AnyType, parse_any
from redistrib.models.weight_map import WeightMap
from redistrib.types.array_type import ArrayType
from redistrib.types.dtypes import itemsize
from redistrib.types.mesh import Mesh

GIB = 2**30
Types = dict[str, AnyType]


@dataclass(frozen=True, slots=True)
class Workload:
    """A move: the types of all arrays on both sides, and how the targets are made."""

    name: str
    src: Types
    dst: Types
    weights: WeightMap


@dataclass(frozen=True, slots=True)
class Model:
    """Shapes of a public configuration; `experts` 0 for a dense model."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head: int
    ffn: int
    vocabulary: int
    experts: int = 0


LLAMA_8B = Model(32, 4096, 32, 8, 128, 14336, 128256)
LLAMA_70B = Model(80, 8192, 64, 8, 128, 28672, 128256)
QWEN_235B = Model(94, 4096, 64, 4, 128, 1536, 151936, 128)
DEEPSEEK_V3_FFN = Model(58, 7168, 128, 128, 56, 2048, 129280, 256)


def hugging_face(model: Model, stages: list[Mesh], over: str) -> Types:
    """A dense model by Hugging Face's names, every matrix over one axis, layers over the stages."""
    kv, q = model.kv_heads * model.head, model.heads * model.head
    h, f = model.hidden, model.ffn
    shapes = {
        "self_attn.q_proj": (q, h),
        "self_attn.k_proj": (kv, h),
        "self_attn.v_proj": (kv, h),
        "self_attn.o_proj": (h, q),
        "mlp.gate_proj": (f, h),
        "mlp.up_proj": (f, h),
        "mlp.down_proj": (h, f),
    }
    types: Types = {}
    for i in range(model.layers):
        mesh = stages[i * len(stages) // model.layers]
        for name, (rows, columns) in shapes.items():
            types[f"model.layers.{i}.{name}.weight"] = ArrayType.parse(
                f"bf16[{rows}{{{over}}}, {columns}]", mesh
            )
        for norm in ("input_layernorm", "post_attention_layernorm"):
            types[f"model.layers.{i}.{norm}.weight"] = ArrayType.parse(f"bf16[{h}]", mesh)
    types["model.embed_tokens.weight"] = ArrayType.parse(
        f"bf16[{model.vocabulary}{{{over}}}, {h}]", stages[0]
    )
    types["model.norm.weight"] = ArrayType.parse(f"bf16[{h}]", stages[-1])
    types["lm_head.weight"] = ArrayType.parse(
        f"bf16[{model.vocabulary}{{{over}}}, {h}]", stages[-1]
    )
    return types


VLLM_DENSE = """
model.layers.{i}.qkv = concat(0, model.layers.{i}.self_attn.q_proj.weight,
    model.layers.{i}.self_attn.k_proj.weight, model.layers.{i}.self_attn.v_proj.weight)
model.layers.{i}.gate_up = concat(0, model.layers.{i}.mlp.gate_proj.weight,
    model.layers.{i}.mlp.up_proj.weight)
"""


def vllm_dense(model: Model, mesh: Mesh) -> Types:
    """The same model as vLLM holds it: qkv and gate_up fused per rank."""
    kv, q = model.kv_heads * model.head, model.heads * model.head
    h, f = model.hidden, model.ffn
    types: Types = {}
    texts = {
        "qkv": f"bf16[{q}{{tp}}|{kv}{{tp}}|{kv}{{tp}}, {h}]",
        "gate_up": f"bf16[{f}{{tp}}|{f}{{tp}}, {h}]",
        "self_attn.o_proj.weight": f"bf16[{h}, {q}{{tp}}]",
        "mlp.down_proj.weight": f"bf16[{h}, {f}{{tp}}]",
        "input_layernorm.weight": f"bf16[{h}]",
        "post_attention_layernorm.weight": f"bf16[{h}]",
    }
    for i in range(model.layers):
        for name, text in texts.items():
            types[f"model.layers.{i}.{name}"] = parse_any(text, mesh)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        types[name] = parse_any(f"bf16[{model.vocabulary}{{tp}}, {h}]", mesh)
    types["model.norm.weight"] = parse_any(f"bf16[{h}]", mesh)
    return types


def pipeline(axes: Mapping[str, int], stages: int) -> tuple[list[Mesh], int]:
    """Meshes of so many stages after each other, and the first device id after them."""
    size = int(np.prod(list(axes.values())))
    ids = [range(n * size, (n + 1) * size) for n in range(stages)]
    return [Mesh(axes, devices=devices) for devices in ids], stages * size


def llama(name: str, model: Model, train: int, stages: int, serve: Mapping[str, int]) -> Workload:
    """FSDP over `train` devices a stage, to tensor-parallel servers on other devices."""
    meshes, first = pipeline({"fsdp": train}, stages)
    size = int(np.prod(list(serve.values())))
    target = Mesh(serve, devices=range(first, first + size))
    return Workload(
        name,
        hugging_face(model, meshes, "fsdp"),
        vllm_dense(model, target),
        WeightMap.parse(VLLM_DENSE),
    )


def qwen() -> Workload:
    """Qwen3-235B, Megatron's TP4.PP8.EP16 to vLLM's TP8.DP16: 4 KV heads, each on 2 ranks."""
    m = QWEN_235B
    dense, first = pipeline({"dp": 16, "tp": 4}, 8)
    expert, _ = pipeline({"ep": 16, "etp": 4}, 8)
    serve = Mesh({"dp": 16, "tp": 8}, devices=range(first, first + 128))
    src: Types = {}
    dst: Types = {}
    q, kv, h, e, f = m.heads * m.head, m.kv_heads * m.head, m.hidden, m.experts, m.ffn
    for i in range(m.layers):
        mesh, experts = (side[i * 8 // m.layers] for side in (dense, expert))
        layer = f"decoder.layers.{i}"
        src[f"{layer}.linear_qkv"] = parse_any(f"bf16[{q + 2 * kv}{{tp}}, {h}]", mesh)
        src[f"{layer}.linear_proj"] = parse_any(f"bf16[{h}, {q}{{tp}}]", mesh)
        src[f"{layer}.experts.fc1"] = parse_any(f"bf16[{e}{{ep}}, {2 * f}, {h}]", experts)
        src[f"{layer}.experts.fc2"] = parse_any(f"bf16[{e}{{ep}}, {h}, {f}]", experts)
        src[f"{layer}.router"] = parse_any(f"bf16[{e}, {h}]", mesh)
        src[f"{layer}.norm"] = parse_any(f"bf16[{h}]", mesh)
        layer = f"model.layers.{i}"
        dst[f"{layer}.qkv_proj"] = parse_any(
            f"bf16[{q}{{tp}}|{2 * kv}{{tp}}|{2 * kv}{{tp}}, {h}]", serve
        )
        dst[f"{layer}.o_proj"] = parse_any(f"bf16[{h}, {q}{{tp}}]", serve)
        dst[f"{layer}.w13"] = parse_any(f"bf16[{e}, {f}{{tp}}|{f}{{tp}}, {h}]", serve)
        dst[f"{layer}.w2"] = parse_any(f"bf16[{e}, {h}, {f}{{tp}}]", serve)
        dst[f"{layer}.gate"] = parse_any(f"bf16[{e}, {h}]", serve)
        dst[f"{layer}.norm"] = parse_any(f"bf16[{h}]", serve)
    for name, mesh in (("embedding", dense[0]), ("output", dense[-1])):
        src[name] = parse_any(f"bf16[{m.vocabulary}{{tp}}, {h}]", mesh)
        dst[name] = parse_any(f"bf16[{m.vocabulary}{{tp}}, {h}]", serve)
    grouped = 'rearrange(decoder.layers.{i}.linear_qkv, "(g j d) h -> g j d h", j=18, d=128)'
    weights = WeightMap.parse(
        f"""
        model.layers.{{i}}.qkv_proj = concat(0,
            rearrange({grouped}[:, 0:16], "g j d h -> (g j d) h"),
            rearrange({grouped}[:, 16], "g d h -> (g r d) h", r=2),
            rearrange({grouped}[:, 17], "g d h -> (g r d) h", r=2))
        model.layers.{{i}}.o_proj = decoder.layers.{{i}}.linear_proj
        model.layers.{{i}}.w13 = decoder.layers.{{i}}.experts.fc1
        model.layers.{{i}}.w2 = decoder.layers.{{i}}.experts.fc2
        model.layers.{{i}}.gate = decoder.layers.{{i}}.router
        model.layers.{{i}}.norm = decoder.layers.{{i}}.norm
        """
    )
    return Workload("Qwen3-235B TP4.PP8.EP16 to TP8.DP16", src, dst, weights)


def deepseek(*, apart: bool) -> Workload:
    """DeepSeek-V3's experts, PP16.EP16 to TP32.DP8; `apart`: one array each, by their own names."""
    m = DEEPSEEK_V3_FFN
    expert, first = pipeline({"ep": 16}, 16)
    serve = Mesh({"dp": 8, "tp": 32}, devices=range(first, first + 256))
    src: Types = {}
    dst: Types = {}
    h, e, f = m.hidden, m.experts, m.ffn
    for i in range(3, 3 + m.layers):
        mesh = expert[(i - 3) * 16 // m.layers]
        layer = f"model.layers.{i}.mlp"
        if apart:
            per_device = e // 16
            for n in range(e):
                alone = Mesh({"one": 1}, devices=[mesh.ids[n // per_device]])
                for name, shape in (("gate", (f, h)), ("up", (f, h)), ("down", (h, f))):
                    src[f"{layer}.experts.{n}.{name}_proj.weight"] = ArrayType(alone, "bf16", shape)
        else:
            for name, rows, columns in (("gate", f, h), ("up", f, h), ("down", h, f)):
                src[f"{layer}.{name}"] = parse_any(f"bf16[{e}{{ep}}, {rows}, {columns}]", mesh)
        dst[f"{layer}.w13"] = parse_any(f"bf16[{e}, {f}{{tp}}|{f}{{tp}}, {h}]", serve)
        dst[f"{layer}.w2"] = parse_any(f"bf16[{e}, {h}, {f}{{tp}}]", serve)
    if apart:
        experts = "model.layers.{i}.mlp.experts.{e}"
        weights = WeightMap.parse(
            f"""
            model.layers.{{i}}.mlp.w13 = stack(0, {{e}} in 0:{e}:
                concat(0, {experts}.gate_proj.weight, {experts}.up_proj.weight))
            model.layers.{{i}}.mlp.w2 = stack(0, {{e}} in 0:{e}: {experts}.down_proj.weight)
            """
        )
        return Workload("DeepSeek-V3 experts, one array each", src, dst, weights)
    weights = WeightMap.parse(
        """
        model.layers.{i}.mlp.w13 = concat(1, model.layers.{i}.mlp.gate, model.layers.{i}.mlp.up)
        model.layers.{i}.mlp.w2 = model.layers.{i}.mlp.down
        """
    )
    return Workload("DeepSeek-V3 experts PP16.EP16 to TP32.DP8", src, dst, weights)


def large() -> Workload:
    """16,384 devices to 16,384 others: Llama-3 70B, FSDP 128 in replicas of 128, to TP8."""
    source = Mesh({"dp": 128, "fsdp": 128})
    target = Mesh({"dp": 2048, "tp": 8}, devices=range(16384, 32768))
    return Workload(
        "Llama-3 70B, 16,384 to 16,384",
        hugging_face(LLAMA_70B, [source], "fsdp"),
        vllm_dense(LLAMA_70B, target),
        WeightMap.parse(VLLM_DENSE),
    )


def workloads() -> Iterator[Workload]:
    """The moves of the table."""
    yield llama("Llama-3 8B FSDP8 to TP8", LLAMA_8B, 8, 1, {"tp": 8})
    yield llama("Llama-3 70B FSDP16.PP4 to TP8.DP4", LLAMA_70B, 16, 4, {"dp": 4, "tp": 8})
    yield qwen()
    yield deepseek(apart=False)
    yield deepseek(apart=True)
    yield large()


def row(workload: Workload) -> str:
    """A line of the table."""
    start = time.process_time()
    plan = plan_model(workload.src, workload.dst, weights=workload.weights)
    planned = time.process_time()
    transfers = len(plan.schedule(plan.devices[-1]))
    scheduled = time.process_time()
    total = sum(_bytes(t) for t in workload.dst.values())
    sent, least = _senders(plan)
    legal, m2n = _by_m2n(plan)
    return (
        f"| {workload.name} | {len(workload.src):,} to {len(workload.dst):,} "
        f"| {plan.received_bytes / GIB:.2f} | {plan.received_bytes / plan.lower_bound_bytes:.3f} "
        f"| {total / GIB:.1f} | {m2n / GIB:.1f} ({legal:,} of {len(plan.dst):,}) "
        f"| {_apart(plan) / GIB:.2f} | {sent / GIB:.3f} | {sent / least:.3f} "
        f"| {planned - start:.2f} | {scheduled - planned:.3f} ({transfers:,}) |"
    )


def _by_m2n(plan: ModelPlan) -> tuple[int, int]:
    """Arrays that NCCL's M2N takes, and what a device receives: all others are sent whole."""
    legal = [": not legal: " not in line for line in m2n_lines(plan)]
    received = [
        plan.dst[move.target].tile_bytes if fits else _bytes(plan.dst[move.target])
        for move, fits in zip(plan.moves, legal, strict=True)
    ]
    return sum(legal), sum(received)


def _apart(plan: ModelPlan) -> int:
    """Bytes that the worst device of the sources sends where every array is planned alone.

    The first replicas serve first each time: nobody knows what the others have given.
    """
    place = {device: n for n, device in enumerate(plan.devices)}
    sent = np.zeros(len(place), np.int64)
    loads: dict[int, Load] = {}
    for crossing in (
        c for of_target in plan.crossings.values() for c in of_target if c is not None
    ):
        route, source, target, _ = crossing
        if id(route) not in loads:
            loads[id(route)] = load_of(route)
        load = loads[id(route)]
        width = itemsize(narrowest(route.copy.dtypes))
        sent[[place[device] for device in source.ids]] += load.sent * width
        sent[[place[device] for device in target.ids]] += load.relayed * width
    sources = {device for t in plan.src.values() for device in t.mesh.ids}
    return int(max(sent[place[device]] for device in sources))


def _bytes(t: AnyType) -> int:
    return int(np.prod(t.shape)) * 2


def _senders(plan: ModelPlan) -> tuple[int, float]:
    """Bytes that the worst device of the sources sends, and the least possible for the worst.

    The least: what only one set of replicas holds, which is a mesh here, over its devices.
    """
    place = {device: n for n, device in enumerate(plan.devices)}
    sent = plan.loads.sent
    meshes = {t.mesh for t in plan.src.values()}
    per_set: dict[frozenset[int], int] = {}
    for mesh in meshes:
        members = frozenset(mesh.ids)
        per_set[members] = int(sum(sent[place[device]] for device in members))
    worst = max(int(sent[place[device]]) for members in per_set for device in members)
    return worst, max(total / len(members) for members, total in per_set.items())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="workloads whose name has this text")
    only = parser.parse_args().only
    print(f"{date.today()}, {platform.processor() or platform.machine()}, one core\n")
    print(
        "| move | arrays | received, GiB | of the bound | full broadcast, GiB "
        "| M2N, GiB (legal arrays) | array by array, worst sender, GiB "
        "| worst sender, GiB | of the least | planned, CPU s "
        "| one rank's schedule, CPU s (transfers) |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for workload in workloads():
        if only in workload.name:
            print(row(workload), flush=True)


if __name__ == "__main__":
    main()
