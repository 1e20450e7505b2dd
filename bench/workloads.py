"""What the runners are measured on: the survey of redistrib/demo/survey.py, and real programs.

The real ones are the demo's and those below, restated on 16 devices at most: axes and dimensions
are smaller, which axis owns which dimension is as in the source. bf16 and f16 are restated as u16,
because XLA on CPU widens the former before it moves them, which says nothing about resharding.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import redistrib as rd
from bench.problems import Problem
from redistrib.demo import workloads as demo
from redistrib.demo.survey import COUNTS, pairs
from redistrib.types.digits import DeviceDigit, Factor

SURVEY = tuple(COUNTS)
REAL = "real"
PERIOD = 65_521


@dataclass(frozen=True, slots=True)
class Workload:
    """One redistribution. `group` is "real" or "survey N" for N devices."""

    group: str
    name: str
    source: str
    src: rd.ArrayType
    dst: rd.ArrayType

    @property
    def devices(self) -> int:
        """How many devices."""
        return self.src.mesh.num_devices

    @property
    def request(self) -> dict[str, Any]:
        """What a worker is sent; `problem` is for those that do not know our types."""
        try:
            problem = asdict(problem_of(self.src, self.dst))
        except LookupError:
            problem = None
        return {
            "mesh": str(self.src.mesh),
            "src": str(self.src),
            "dst": str(self.dst),
            "itemsize": self.src.itemsize,
            "problem": problem,
        }


def parse_types(request: dict[str, Any]) -> tuple[rd.ArrayType, rd.ArrayType]:
    """The two types of a workload, from what a worker is sent."""
    mesh = rd.Mesh.parse(request["mesh"])
    return rd.ArrayType.parse(request["src"], mesh), rd.ArrayType.parse(request["dst"], mesh)


def problem_of(src: rd.ArrayType, dst: rd.ArrayType) -> Problem:
    """The layouts by numbers of axes. Raises LookupError unless whole axes own dimensions."""
    whole: list[Factor] = [DeviceDigit(name, 1, size) for name, size in src.mesh.axes]
    layouts = []
    for t in (src, dst):
        if t.partial or any(factor not in whole for dim in t.dims for factor in dim):
            raise LookupError("the layouts are not of whole axes")
        layouts.append(tuple(tuple(whole.index(digit) for digit in dim) for dim in t.dims))
    return Problem(tuple(size for _, size in src.mesh.axes), src.shape, *layouts)


def survey(devices: int, count: int | None, size: int) -> list[Workload]:
    """Seeded pairs on 8, 12 or 16 devices, the first `count`, on arrays of about `size` bytes."""
    found = []
    for number, pair in enumerate(pairs(devices, count)):
        mesh = rd.Mesh(pair.axes)
        src, dst = (
            rd.ArrayType(mesh, pair.dtype, pair.shape, dims) for dims in (pair.src, pair.dst)
        )
        name = f"survey {devices} #{number}"
        source = "redistrib/demo/survey.py"
        found.append(
            Workload(f"survey {devices}", name, source, grown(src, size), grown(dst, size))
        )
    return found


def real(size: int) -> list[Workload]:
    """The named workloads, on arrays of at least `size` bytes, at most twice that."""
    stated = [(w.name, w.source, w.mesh, w.src, w.dst) for w in demo.WORKLOADS]
    found = []
    for name, source, mesh_text, *texts in (*stated, *RESTATED):
        mesh = rd.Mesh.parse(mesh_text)
        ends = (
            rd.ArrayType.parse(text.replace("bf16[", "u16[").replace("f16[", "u16["), mesh)
            for text in texts
        )
        found.append(Workload(REAL, name, source, *(grown(t, size) for t in ends)))
    return found


def array_of(t: rd.ArrayType) -> Any:
    """An array of a type whose elements repeat with a prime period, since every process makes one.

    No shape here has a stride that is a multiple of the period: a tile in a wrong place differs.
    """
    values = demo.array_of(rd.ArrayType(t.mesh, t.dtype, (PERIOD,), ((),)))
    return np.resize(values, t.shape)


def grown(t: rd.ArrayType, size: int) -> rd.ArrayType:
    """The same layout on an array whose largest dimension is doubled until it has `size` bytes."""
    shape = list(t.shape)
    at = shape.index(max(shape))
    while t.itemsize * t.size * shape[at] // t.shape[at] < size:
        shape[at] *= 2
    return rd.ArrayType(t.mesh, t.dtype, shape, t.dims, t.partial, t.reduction)


RESTATED = (
    (
        "Gemma activations",
        "Physical-Intelligence/openpi, pi0.5 (PaliGemma) under FSDP: XLA log of involuntary full"
        " rematerialization, {devices=[8,1,1]} to {devices=[1,1,2,4]}",
        "a=2,b=4",
        "bf16[128{a,b}, 242, 1024]",
        "bf16[128, 242, 1024{a}]",
    ),
    (
        "PaLM feed-forward weight",
        "PaLM, arXiv 2204.02311, section 4: 12-way model x data parallelism",
        "data=4,model=3",
        "bf16[1152{data}, 4608{model}]",
        "bf16[1152, 4608{model}]",
    ),
    (
        "PaLM inference, weights to attention",
        "Pope et al., arXiv 2211.05102, figures 4 and 5: heads to batch on x,y,z",
        "x=2,y=2,z=4",
        "bf16[512, 1, 64{x,y,z}, 64]",
        "bf16[512{x,y,z}, 1, 64, 64]",
    ),
    (
        "PaLM inference, weight gathered over x,y",
        "Pope et al., arXiv 2211.05102, section 3.2.3",
        "x=2,y=2,z=4",
        "bf16[1152{x}, 4608{y,z}]",
        "bf16[1152, 4608{z}]",
    ),
    (
        "GShard dispatch",
        "GShard, arXiv 2006.16668, figure 3: GSEC,GSM->EGCM",
        "d=16",
        "bf16[16, 256{d}, 2, 256]",
        "bf16[16{d}, 256, 2, 256]",
    ),
    (
        "GShard combine",
        "GShard, arXiv 2006.16668, figure 3",
        "d=16",
        "bf16[16{d}, 256, 2, 256]",
        "bf16[16, 256{d}, 2, 256]",
    ),
    (
        "Parti feed-forward weight",
        "Parti, arXiv 2206.10789: 4096 x 16384, scaled with GSPMD; layouts of arXiv 2105.04663,"
        " section 5.1",
        "X=4,Y=4",
        "bf16[1024{X}, 4096{Y}]",
        "bf16[1024, 4096{Y}]",
    ),
    (
        "GSPMD 2-D activations",
        "GSPMD, arXiv 2105.04663, section 5.1: BSM = X,_,Y",
        "X=4,Y=4",
        "bf16[64{X}, 128, 256{Y}]",
        "bf16[64{X,Y}, 128, 256]",
    ),
    (
        "DeepSeek-V3 expert weights",
        "AI-Hypercomputer/maxtext: deepseek3-671b.yml and base.yml",
        "fsdp=4,expert=4",
        "bf16[64{expert}, 256{fsdp}, 128]",
        "bf16[64{expert,fsdp}, 256, 128]",
    ),
    (
        "MoE context to expert",
        "marin-community/marin grug MoE: XLA log of involuntary full rematerialization",
        "expert=4,context=4",
        "f32[8, 192, 768{context,expert}]",
        "f32[8{expert}, 192, 768]",
    ),
    (
        "PartIR batch to model",
        "PartIR and its OCaml port (rtjoa/partir-redistribution-ocaml): README, mesh x=2,y=3",
        "x=2,y=3",
        "f32[1152{x,y}, 1152]",
        "f32[1152, 1152{y,x}]",
    ),
    (
        "Llama attention to feed-forward",
        "young-geng/EasyLM: LLaMA partition rules",
        "fsdp=4,mp=4",
        "f32[1024{fsdp}, 1024{mp}]",
        "f32[1024{mp}, 1024{fsdp}]",
    ),
    (
        "GPT-3 sequence to tensor",
        "Korthikanti et al., arXiv 2205.05198: sequence parallelism, t=8",
        "tp=8",
        "bf16[2048{tp}, 1, 1024]",
        "bf16[2048, 1, 1024{tp}]",
    ),
    (
        "GPT vocabulary to sequence",
        "Megatron-LM: vocabulary-parallel logits",
        "tp=8",
        "bf16[512, 1, 6400{tp}]",
        "bf16[512{tp}, 1, 6400]",
    ),
    (
        "torchtitan optimizer state",
        "github.com/pytorch/torchtitan/pull/1561",
        "dp=2,ep=4",
        "f32[8{ep,dp}, 512, 256]",
        "f32[8{ep}, 512{dp}, 256]",
    ),
    (
        "RL weight sync, trainer to generator",
        "verl-project/verl#400; pytorch#146601: FSDP rows to tensor-parallel columns",
        "gpu=8",
        "bf16[1024{gpu}, 3584]",
        "bf16[1024, 3584{gpu}]",
    ),
    (
        "RL weight sync, experts",
        "verl-project/verl#7085: experts over (ep, fsdp) to tensor parallel, on one set of devices",
        "ep=4,fsdp=4",
        "bf16[128{ep}, 512{fsdp}, 192]",
        "bf16[128, 512, 192{ep,fsdp}]",
    ),
    (
        "FFT pencils x to y",
        "DifferentiableUniverseInitiative/jaxDecomp: benchmarks",
        "z=4,y=4",
        "c64[64{z}, 128{y}, 64]",
        "c64[64{z}, 128, 64{y}]",
    ),
    (
        "FFT slabs",
        "jaxDecomp#27, CaNS#18",
        "p=16",
        "c64[64{p}, 128, 64]",
        "c64[64, 128{p}, 64]",
    ),
    (
        "FFT 3-D decomposition to pencils",
        "ROCm/rocFFT#627: {4,8,4} to {1,16,8}, restated on 2x4x2",
        "a=2,b=4,c=2",
        "c64[64{a}, 128{b}, 64{c}]",
        "c64[64, 128{b,a}, 64{c}]",
    ),
    (
        "matrix [MC,MR] to [VC,*]",
        "Elemental (Poulson et al. 2013)",
        "mc=3,mr=4",
        "f64[960{mc}, 960{mr}]",
        "f64[960{mc,mr}, 960]",
    ),
    (
        "matrix [VC,*] to [VR,*]",
        "Elemental (Poulson et al. 2013)",
        "mc=3,mr=4",
        "f64[960{mc,mr}, 960]",
        "f64[960{mr,mc}, 960]",
    ),
    (
        "2x2 grid to columns",
        "pbdDEMO, reblock.r: contexts 2x2 and 1x4",
        "r=2,c=2",
        "f64[500{r}, 1200{c}]",
        "f64[500, 1200{r,c}]",
    ),
    (
        "tensor amplitudes to a matrix",
        "ROTE (Schatz et al. 2015): CCSD t2 matricised",
        "g0=2,g1=2,g2=2,g3=2",
        "f64[32{g0}, 32{g1}, 24{g2}, 24{g3}]",
        "f64[32{g0,g2}, 32{g1,g3}, 24, 24]",
    ),
    (
        "three dimensions reversed",
        "pytorch/pytorch: test_redistribute_shard_dim_multi_dim_mesh, S(0)S(1)S(2) to S(2)S(1)S(0)",
        "a=2,b=2,c=2",
        "f32[64{a}, 128{b}, 128{c}]",
        "f32[64{c}, 128{b}, 128{a}]",
    ),
    (
        "adversarial: order reversed in one dimension",
        "pytorch/pytorch#165712, example 1",
        "X=4,Y=4",
        "f32[4096{X,Y}, 256]",
        "f32[4096{Y,X}, 256]",
    ),
    (
        "adversarial: one axis for another",
        "github.com/EnzymeAD/Enzyme-JAX/issues/822",
        "a=4,b=4",
        "f32[1024{a}, 1024]",
        "f32[1024{b}, 1024]",
    ),
    (
        "adversarial: swap of unequal axes",
        "openxla/shardy: reshard_to_collectives.mlir @swap_diff_size",
        "x=8,y=2",
        "f32[1024{x}, 1024{y}]",
        "f32[1024{y}, 1024{x}]",
    ),
    (
        "adversarial: reorder across dimensions",
        "openxla/shardy: reshard_to_collectives.mlir @reorder_axes_across",
        "x=4,y=2,z=2",
        "f32[1024{x,y}, 1024{z}]",
        "f32[1024{y,z}, 1024{x}]",
    ),
    (
        "adversarial: four axes rotate",
        "openxla/shardy: reshard_to_collectives.mlir @replace_multiple, on four axes",
        "x=2,y=2,z=2,w=2",
        "f32[32{x}, 32{y}, 32{z}, 32{w}]",
        "f32[32{w}, 32{x}, 32{y}, 32{z}]",
    ),
)
