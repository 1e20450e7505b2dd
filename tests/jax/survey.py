"""A seeded survey of reshardings on jax: our programs beside those of XLA, by HLO and bit for bit.

`python -m tests.jax.survey` reads pairs from stdin, one JSON object a line, and writes a line for
each program: its figures, and whether every shard is what the type says. XLA's compiler divides by
zero on some pairs and takes the process with it, so `survey` runs this in processes of its own and
goes on after the pair that crashed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from math import prod
from pathlib import Path

from redistrib.demo.survey import Figures, Pair, figures, pair_of
from tests.worker import cpu_devices

ROOT = Path(__file__).parents[2]
SCALARS = 4096
"""Bytes that starts of boxes and the like may take beside the tiles."""


def survey(work: Iterable[tuple[Pair, str]], timeout: float = 600) -> Iterator[Figures]:
    """The figures of each program, in order; {"crashed": signal} where the process was lost.

    A program is "ours", "chunked" (ours in CHUNKS chunks) or "xla".
    """
    left = list(work)
    while left:
        text = "".join(json.dumps([asdict(pair), program]) + "\n" for pair, program in left)
        run = subprocess.run(
            [sys.executable, "-m", "tests.jax.survey"],
            cwd=ROOT,
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        found = [json.loads(line) for line in run.stdout.splitlines()]
        yield from found
        left = left[len(found) :]
        if run.returncode > 0 or (left and not run.returncode):
            raise RuntimeError(run.stderr[-4000:])
        if left:
            yield {"crashed": -run.returncode}
            left = left[1:]


def check(work: Sequence[Pair], ratios: dict[str, list[float]] | None = None) -> Counter[str]:
    """Run all programs for these pairs, and check what must hold of each; counts of what was seen.

    `ratios` collects received bytes over the bound, of ours and of XLA's.
    """
    counts: Counter[str] = Counter()
    programs = ("ours", "chunked", "xla")
    results = survey([(pair, program) for pair in work for program in programs])
    for pair in work:
        ours, chunked, xla = (next(results) for _ in programs)
        largest = max(ours["source"], ours["target"])
        assert ours["exact"], pair
        assert ours["buffer"] <= largest, (pair, ours)
        assert ours["temp"] <= 2 * largest + SCALARS, (pair, ours)
        counts["pairs"] += 1
        if chunked:
            assert chunked["exact"], pair
            assert chunked["received"] == ours["received"], (pair, chunked)
            # XLA on CPU widens narrow floats where they are sliced and updated, so both ends of a
            # loop are copied, as integers.
            copies = ours["source"] + ours["target"] if pair.dtype == "bf16" else 0
            assert chunked["temp"] <= copies + 0.3 * largest + SCALARS, (pair, chunked)
            counts["in chunks"] += 1
        if "crashed" in xla:
            counts["XLA crashed"] += 1
            continue
        assert ours["received"] <= xla["received"], (pair, ours, xla)
        counts["XLA's buffer above both tiles"] += xla["buffer"] > largest
        counts["XLA's temp above 2 tiles"] += xla["temp"] > 2 * largest
        counts["XLA receives more"] += xla["received"] > ours["received"]
        if ratios is not None and ours["bound"]:
            for name, found in (("ours", ours), ("xla", xla)):
                ratios.setdefault(name, []).append(found["received"] / ours["bound"])
    return counts


def main() -> None:
    """Answer the pairs on stdin, on virtual CPU devices."""
    work = [(pair_of(entry), program) for entry, program in map(json.loads, sys.stdin)]
    count = max(prod(pair.mesh) for pair, _ in work)
    os.environ.update(cpu_devices(count))
    import jax

    for pair, program in work:
        sys.stdout.write(json.dumps(figures(pair, program, jax.devices())) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
