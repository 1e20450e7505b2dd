"""Llama-3 8B's 291 arrays, every dimension an eighth: from sharded weights to tensor parallel."""

from __future__ import annotations

import numpy as np

import redistrib as rd
from redistrib.models.model_plan import ModelPlan
from redistrib.models.segments import AnyType

RATIOS = (1.1, 1.3, 2.0)
MATRICES = {
    "q": (512, 512),
    "k": (128, 512),
    "v": (128, 512),
    "o": (512, 512),
    "gate": (1792, 512),
    "up": (1792, 512),
    "down": (512, 1792),
}
MESHES = (rd.Mesh(tp=8), rd.Mesh(dp=2, tp=4))


def llama(serve: rd.Mesh, ratio: float, layers: int = 32) -> ModelPlan:
    """FSDP over 8 to tensor parallel over `tp`, within so much of what the larger side holds."""
    train = rd.Mesh(fsdp=8)
    src, dst = {}, {}
    for i in range(layers):
        for name, (rows, columns) in MATRICES.items():
            by_columns = name in ("o", "down")
            cut = f"{rows}, {columns}{{tp}}" if by_columns else f"{rows}{{tp}}, {columns}"
            src[f"{i}.{name}"] = (f"f16[{rows}{{fsdp}}, {columns}]", train)
            dst[f"{i}.{name}"] = (f"f16[{cut}]", serve)
        for name in ("norm1", "norm2"):
            src[f"{i}.{name}"], dst[f"{i}.{name}"] = ("f16[512]", train), ("f16[512]", serve)
    for name in ("embed", "head"):
        src[name], dst[name] = ("f16[16032{fsdp}, 512]", train), ("f16[16032{tp}, 512]", serve)
    src["norm"], dst["norm"] = ("f16[512]", train), ("f16[512]", serve)
    budget = int(ratio * max(held(src), held(dst)))
    return rd.plan_model(src, dst, keep_sources=False, memory_budget=budget)


def held(types: dict[str, tuple[str, rd.Mesh]]) -> int:
    """Bytes of one device."""
    return sum(rd.ArrayType.parse(text, mesh).tile_bytes for text, mesh in types.values())


def tile_of(t: AnyType, name: str, device: int) -> np.ndarray:
    """What a device holds of an array whose numbers tell arrays, rows and columns."""
    assert isinstance(t, rd.ArrayType)
    rows, *columns = (held.astype(np.uint16) for held in t.tile(t.mesh.ids.index(device)))
    numbers = np.add.outer(7 * rows, columns[0]) if columns else 7 * rows
    return (numbers % 2048 + len(name)).astype(np.float16)
