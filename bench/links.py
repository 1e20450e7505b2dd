"""Prices beside public models and reported bandwidths of collectives: `python -m bench.links`.

A reported bus bandwidth is that of nccl-tests: (n-1)/n of the array, twice for an all_reduce, over
the seconds. The public model of TPUs moves V bytes of array along n rings in V/(nW), W being both
directions of a link, along one for an all_to_all in a quarter of that, since its pieces go part of
the way, and along a line of k devices in (k-1)/k V/(W/2), since nothing goes around its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import redistrib as rd
from redistrib.synth.plan.collectives import (
    AllGather,
    AllReduce,
    AllToAll,
    Collective,
    Move,
    ReduceScatter,
)

GIB = 1 << 30
MOVES = {
    "all_gather": ("i8[{v}{{x}}]", "i8[{v}]"),
    "reduce_scatter": ("i8[{v}] sum{{x}}", "i8[{v}{{x}}]"),
    "all_reduce": ("i8[{v}] sum{{x}}", "i8[{v}]"),
    "all_to_all": ("i8[{v}{{x}}, 256]", "i8[{v}, 256{{x}}]"),
}
RING = {"all_gather": 1.0, "reduce_scatter": 1.0, "all_reduce": 2.0, "all_to_all": 0.25}
BOOK = "How to Scale Your Model, part 3, https://jax-ml.github.io/scaling-book/sharding"
NCCL = "https://docs.alayanew.com/en/docs/tech-blog/2026-05-06-nccl-tests"
BOTH_WAYS = {"tpu-v5e": 9e10, "tpu-v5p": 1.8e11, "tpu-v6e": 1.8e11}


@dataclass(frozen=True, slots=True)
class Public:
    """What a public source has a collective over some axes take.

    `mesh` has ids in order, from the last axis on; `size` is that of the array, in bytes.
    """

    profile: str
    mesh: rd.Mesh
    axes: tuple[str, ...]
    collective: str
    seconds: float
    source: str
    size: int = GIB

    @property
    def text(self) -> str:
        """The collective, and the devices along each axis."""
        sizes = "x".join(str(self.mesh.axis_size(axis)) for axis in self.axes)
        of = "" if self.size == GIB else f" of {self.size >> 20} MiB"
        return f"{self.collective}{of} over {sizes}"


def public() -> Iterator[Public]:
    """The figures, all of collectives within one slice or node."""
    for profile, both_ways in BOTH_WAYS.items():
        rings = ("x", "y", "z") if profile == "tpu-v5p" else ("x", "y")
        mesh = rd.Mesh([(axis, 16) for axis in reversed(rings)])
        for name, times in RING.items():
            yield Public(profile, mesh, ("x",), name, times * GIB / both_ways, BOOK)
        for count in range(2, len(rings) + 1):
            for name in ("all_gather", "all_reduce"):
                seconds = RING[name] * GIB / (count * both_ways)
                yield Public(profile, mesh, rings[:count], name, seconds, BOOK)
    line = rd.Mesh(y=16, z=2, x=8)
    for profile in ("tpu-v5e", "tpu-v6e"):
        seconds = 7 / 8 * GIB / (BOTH_WAYS[profile] / 2)
        yield Public(profile, line, ("x",), "all_gather", seconds, BOOK)
    # Measured: 680 us, on a slice of 8x4.
    yield Public(
        "tpu-v5e:8x4", rd.Mesh(y=8, x=4), ("x",), "all_gather", 680e-6, BOOK, 2048 * 8192 * 2
    )
    for profile, bus in (("dgx-h100", 470e9), ("a100-cloud", 240e9)):
        yield Public(profile, rd.Mesh(x=8), ("x",), "all_reduce", 2 * 7 / 8 * GIB / bus, NCCL)


def price(entry: Public) -> float:
    """Our price of the same collective."""
    elements = entry.size // 256 if entry.collective == "all_to_all" else entry.size
    axes = ",".join(entry.axes)
    src, dst = (
        rd.ArrayType.parse(text.format(v=elements).replace("{x}", f"{{{axes}}}"), entry.mesh)
        for text in MOVES[entry.collective]
    )
    # That one alone: a plan may slice along an idle ring, and gather along both.
    step = _step(entry.collective, src, dst)
    return rd.plan(src, dst, strategy=lambda _: [step], profile=entry.profile).seconds


def _step(name: str, src: rd.ArrayType, dst: rd.ArrayType) -> Collective:
    if name == "all_to_all":
        (device, source), target = src.placements[0], dst.placements[0][1]
        return AllToAll((Move(device, source, target),))
    if name == "all_reduce":
        return AllReduce(src.partial)
    return AllGather(src.placements) if name == "all_gather" else ReduceScatter(dst.placements)


def main() -> None:
    """Print the table of docs/oracle.md."""
    print("| profile | collective, of 1 GiB | public | here | here over public |")
    print("|---|---|---|---|---|")
    for entry in public():
        ours = price(entry)
        print(
            f"| `{entry.profile}` | {entry.text} | "
            f"{entry.seconds * 1e3:.2f} ms | {ours * 1e3:.2f} ms | {ours / entry.seconds:.2f} |"
        )


if __name__ == "__main__":
    main()
