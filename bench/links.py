"""Prices beside public models and reported bandwidths of collectives: `python -m bench.links`.

A reported bus bandwidth is that of nccl-tests: (n-1)/n of the array, twice for an all_reduce, over
the seconds. The public model of a TPU ring moves V bytes of array in V/W, W being both directions
of a link, and a quarter of that for an all_to_all, whose pieces go part of the way.
"""

from __future__ import annotations

from dataclasses import dataclass

import redistrib as rd

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


@dataclass(frozen=True, slots=True)
class Public:
    """What a public source has a collective of n devices take, for 1 GiB of array."""

    profile: str
    devices: int
    collective: str
    seconds: float
    source: str


def public() -> list[Public]:
    """The figures, all of collectives within one slice or node."""
    result = [
        Public(profile, n, name, times * GIB / both_ways, BOOK)
        for profile, n, both_ways in (
            ("tpu-v5e", 16, 9e10),
            ("tpu-v5p", 16, 1.8e11),
            ("tpu-v6e", 16, 1.8e11),
        )
        for name, times in RING.items()
    ]
    for profile, bus in (("dgx-h100", 470e9), ("a100-cloud", 240e9)):
        result.append(Public(profile, 8, "all_reduce", 2 * 7 / 8 * GIB / bus, NCCL))
    return result


def price(entry: Public) -> float:
    """Our price of the same collective."""
    mesh = rd.Mesh(x=entry.devices)
    bytes_ = GIB // 256 if entry.collective == "all_to_all" else GIB
    src, dst = (rd.ArrayType.parse(text.format(v=bytes_), mesh) for text in MOVES[entry.collective])
    return rd.cost(src, dst, profile=entry.profile).seconds


def main() -> None:
    """Print the table of docs/oracle.md."""
    print("| profile | collective of 1 GiB | public | here | here over public |")
    print("|---|---|---|---|---|")
    for entry in public():
        ours = price(entry)
        print(
            f"| `{entry.profile}` | {entry.collective} over {entry.devices} | "
            f"{entry.seconds * 1e3:.2f} ms | {ours * 1e3:.2f} ms | {ours / entry.seconds:.2f} |"
        )


if __name__ == "__main__":
    main()
