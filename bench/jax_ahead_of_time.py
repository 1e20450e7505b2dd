"""Memory and bytes of resharding programs compiled for TPU and GPU without either.

    python -m bench.jax_ahead_of_time tpu [--devices 12] [--every N --first M] [--json FILE]
    python -m bench.jax_ahead_of_time gpu [--target-config FILE] [...]

Compiles the pairs of redistrib/demo/survey.py on 16 devices, or 12 of them, arrays of 4 GiB in f32
(tiles of 256 MiB and more), ours and in 8 chunks, for TPU v5e:4x4 or for H100. The TPU compiler is
the package libtpu (one process at a time); that for GPU is jax[cuda12-local], which finds the ptxas
of nvidia-cuda-nvcc-cu12 beside it. bench/h100.txtpb describes an H100; FILE another GPU, as a
GpuTargetConfigProto in text. Figures are those of the compiler: temporaries over the larger tile,
and bytes received by the text of the HLO.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.timing import geometric_mean
from redistrib.demo.survey import DTYPES, figures, pairs

H100 = Path(__file__).with_name("h100.txtpb")
SHAPES = {
    12: {2: (36864, 27648), 3: (96, 3072, 3456), 4: (48, 24, 768, 1152)},
    16: {2: (32768, 32768), 3: (128, 2048, 4096), 4: (32, 32, 512, 2048)},
}


def devices(platform: str, target_config: Path) -> Sequence[Any]:
    """The devices of a topology that need not exist here; the file describes a GPU."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["XLA_FLAGS"] = "--xla_gpu_autotune_level=0"
    from jax.experimental import topologies

    described: Any = topologies.get_topology_desc  # typed in parts only
    if platform == "tpu":
        topology = described(platform="tpu", topology_name="v5e:4x4")
    else:
        text = target_config.read_text(encoding="utf-8")
        topology = described(
            platform="cuda", topology_name="x", topology="1x2x8", target_config=text
        )
    # By id: libtpu compiles for a part of a topology only if its ids are the first.
    return sorted(topology.devices, key=lambda device: int(device.id))


def main() -> None:
    """Compile and print a row per program that exceeds a tile, and a summary."""
    parser = argparse.ArgumentParser(prog="python -m bench.jax_ahead_of_time", description=__doc__)
    parser.add_argument("platform", choices=["tpu", "gpu"])
    parser.add_argument("--target-config", type=Path, metavar="FILE", help="another GPU than H100")
    parser.add_argument("--devices", type=int, choices=SHAPES, default=16)
    parser.add_argument("--every", type=int, default=1, help="one pair in so many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--programs", default="ours,chunked", help="of ours, chunked, xla")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.target_config and options.platform != "gpu":
        parser.error("--target-config goes with gpu")
    topology = devices(options.platform, options.target_config or H100)
    chosen = [
        replace(pair, shape=SHAPES[options.devices][len(pair.shape)], dtype=options.dtype)
        for pair in pairs(options.devices)[options.first :: options.every]
    ]
    programs = options.programs.split(",")
    rows = []
    for number, pair in enumerate(chosen, 1):
        for program in programs:
            measured = figures(pair, program, topology, run=False)
            if measured:
                rows.append({**asdict(pair), "program": program, **measured})
        print(f"\r{number}/{len(chosen)} pairs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    lines = [
        f"{topology[0].device_kind}, {options.devices} devices, {options.dtype}, "
        f"{len(chosen)} pairs",
        "",
        "| program | count | temp / larger tile: median, worst | received / bound: mean, worst | "
        "buffer above both tiles |",
        "|---|---|---|---|---|",
    ]
    for program in programs:
        mine = [row for row in rows if row["program"] == program]
        tiles = [max(row["source"], row["target"]) for row in mine]
        temps = [row["temp"] / tile for row, tile in zip(mine, tiles, strict=True)]
        moved = [row["received"] / row["bound"] for row in mine if row["bound"]]
        above = sum(row["buffer"] > tile for row, tile in zip(mine, tiles, strict=True))
        lines.append(
            f"| {program} | {len(mine)} | {median(temps):.2f}, {max(temps):.2f} | "
            f"{geometric_mean(moved):.2f}, {max(moved):.2f} | {above} |"
        )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
