"""Redistributions that real programs perform, scaled to at most 16 devices and a few MiB."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh
from redistrib.types.tile import tile_of

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Workload:
    """One redistribution, `source` where it is described in public, `summary` what it moves."""

    name: str
    source: str
    summary: str
    mesh: str
    src: str
    dst: str

    def types(self) -> tuple[ArrayType, ArrayType]:
        """The types of the two ends."""
        mesh = Mesh.parse(self.mesh)
        return ArrayType.parse(self.src, mesh), ArrayType.parse(self.dst, mesh)


WORKLOADS = (
    Workload(
        "jax#21562",
        "github.com/jax-ml/jax/issues/21562 = openxla/xla#15207",
        "two dimensions give their axes to a third; XLA: involuntary full rematerialization",
        "x=4,y=2",
        "f32[128{y}, 128, 128{x}]",
        "f32[128, 128{x,y}, 128]",
    ),
    Workload(
        "FSDP to TP",
        "github.com/jax-ml/jax/issues/18591",
        "parameters sharded by rows over all devices, used by columns over one axis",
        "a=8,b=2",
        "f32[2048{a,b}, 1024]",
        "f32[2048, 1024{a}]",
    ),
    Workload(
        "GW face to batch",
        "jackmcarthur/lorrax: src/common/staged_reshard.py",
        "matrices over a grid of devices become a batch of whole matrices",
        "x=4,y=4",
        "c128[64, 96{x}, 96{y}]",
        "c128[64{x,y}, 96, 96]",
    ),
    Workload(
        "tied weight swap",
        "young-geng/EasyLM: LLaMA partition rules, wq (fsdp,mp) and wo (mp,fsdp)",
        "one matrix in two layouts: the blocks of two unequal axes are exchanged",
        "fsdp=4,mp=2",
        "f32[1024{fsdp}, 1024{mp}]",
        "f32[1024{mp}, 1024{fsdp}]",
    ),
    Workload(
        "Ulysses attention",
        "DeepSpeed-Ulysses, arXiv 2309.14509",
        "sequence shards become head shards before attention",
        "sp=8",
        "bf16[4096{sp}, 1, 16, 64]",
        "bf16[4096, 1, 16{sp}, 64]",
    ),
    Workload(
        "MoE dispatch",
        "AI-Hypercomputer/maxtext: mixtral-8x7b, logical axis rules of base.yml",
        "tokens over (fsdp, expert) move to the devices of their experts",
        "fsdp=4,expert=4",
        "bf16[8, 64{fsdp,expert}, 32, 256]",
        "bf16[8{expert}, 64{fsdp}, 32, 256]",
    ),
    Workload(
        "FFT pencils x to z",
        "DifferentiableUniverseInitiative/jaxDecomp; mpi4py-fft pencils",
        "two axes rotate over three dimensions of a 3-D transform",
        "z=4,y=2",
        "c64[128{z}, 64{y}, 128]",
        "c64[128, 64{z}, 128{y}]",
    ),
    Workload(
        "brick to pencil",
        "heFFTe bricks; github.com/ROCm/rocFFT/pull/627",
        "3-D bricks on 2x3x2 devices become pencils on 2x6",
        "a=2,b=3,c=2",
        "c64[96{a}, 96{b}, 96{c}]",
        "c64[96, 96{c}, 96{a,b}]",
    ),
    Workload(
        "matrix [MC,MR] to [MR,MC]",
        "Elemental: [MC,MR] to [MR,MC] on a 3x4 grid",
        "the axes of a matrix change places; their sizes have no common factor",
        "mc=3,mr=4",
        "f64[960{mc}, 960{mr}]",
        "f64[960{mr}, 960{mc}]",
    ),
    Workload(
        "tensor rotation",
        "rank-4 tensor contraction layouts (ROTE, Cyclops Tensor Framework) on a 2x2x4 grid",
        "three axes rotate over four dimensions; XLA's compiler crashes",
        "a=2,b=2,c=4",
        "f32[32{c}, 32{a}, 32, 32{b}]",
        "f32[32{a}, 32, 32{b}, 32{c}]",
    ),
    Workload(
        "block-cyclic to block",
        "ScaLAPACK p?gemr2d on a 2x2 process grid",
        "16 cycles of blocks per dimension become one block per process",
        "r=2,c=2",
        "f64[1024{_16,r}, 1024{_16,c}]",
        "f64[1024{r}, 1024{c}]",
    ),
    Workload(
        "fused QKV weight",
        "NVIDIA/Megatron-LM and vLLM QKVParallelLinear",
        "each of the three parts over tp becomes rows over the same devices",
        "tp=8",
        "bf16[2048, 3072{_3,tp}]",
        "bf16[2048{tp}, 3072]",
    ),
    Workload(
        "FSDP gradient",
        "AI-Hypercomputer/maxtext: llama 3.1 405b, fully sharded data parallelism",
        "gradients, a partial sum on every device, become sharded by rows",
        "fsdp=8",
        "f32[2048, 1024] sum{fsdp}",
        "f32[2048{fsdp}, 1024]",
    ),
)


def array_of(t: ArrayType) -> Array:
    """An array of a type in which neighbours differ; whole numbers that the dtype holds exactly."""
    numbers = np.arange(t.size, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    dtype = t.numpy_dtype
    if dtype.kind == "c":
        values = (numbers >> np.uint64(40)) + 1j * (numbers >> np.uint64(50))
    elif t.itemsize >= 4:
        values = numbers >> np.uint64(40)
    else:
        values = (numbers >> np.uint64(40)) % np.uint64(64)
    return values.astype(dtype).reshape(t.shape)


def source_tile(array: Array, t: ArrayType, position: int) -> Array:
    """What the device at a position holds of the array; over partial axes, an addend of its own."""
    if not t.partial:
        return tile_of(array, t, position)
    if t.reduction != "sum":
        raise NotImplementedError(f"addends of {t}")
    count = prod(digit.size for digit in t.partial)
    number = 0
    for digit in t.partial:
        number = number * digit.size + t.digit_coordinate(digit, position)
    pattern = (np.arange(t.size) % 3).astype(array.dtype).reshape(t.shape)
    # Every device but the first holds the pattern; the first holds what is missing.
    addend = pattern if number else (array - (count - 1) * pattern).astype(array.dtype)
    return tile_of(addend, t.replace(partial=()), position)
