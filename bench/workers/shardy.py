"""Shardy's reshard-to-collectives pass as a plan of ours, so that it can be priced and run.

The pass only writes a module of `sdy` collectives; nothing in jax runs them. Each states the
layout after it, so its step is the one collective of our planner between those two layouts, which
moves the same bytes.
"""

from __future__ import annotations

import re
import time

import redistrib as rd
from bench.planners import Shardy
from bench.problems import axis_names
from bench.workers.protocol import UnsupportedError, WrongError
from bench.workloads import problem_of
from redistrib.synth.plan.collectives import Collective
from redistrib.synth.plan.data import Plan, make_plan
from redistrib.types.array_type import ArrayType

STEP = re.compile(r"= sdy\.(\w+) .*out_sharding=<@mesh, \[(.*)\]> :")
DIMENSION = re.compile(r"\{(.*?)\}")


def shardy_plan(src: ArrayType, dst: ArrayType) -> tuple[Plan, float]:
    """The plan, and the wall-clock seconds of the pass: module text to lowered module.

    Raises UnsupportedError for layouts that are not of whole axes, WrongError where the pass ends
    in another layout than the one it was asked for.
    """
    try:
        problem = problem_of(src, dst)
    except LookupError as error:
        raise UnsupportedError(str(error)) from error
    shardy = Shardy()
    text = shardy.text(problem)
    start = time.perf_counter()
    module = shardy.lower(text)
    elapsed = time.perf_counter() - start
    # The pass knows the axes by other names.
    letters = axis_names(len(src.mesh.axes))
    names = dict(zip(letters, (name for name, _ in src.mesh.axes), strict=True))
    types = [src]
    steps: list[Collective] = []
    for collective, sharding in STEP.findall(str(module)):
        dims = [
            [re.sub(r'"(\w)"', lambda axis: names[axis[1]], factor) for factor in inner.split(", ")]
            if inner
            else []
            for inner in DIMENSION.findall(sharding)
        ]
        types.append(ArrayType(src.mesh, src.dtype, src.shape, dims))
        part = rd.plan(types[-2], types[-1], strategy="collectives")
        if part.num_collectives > 1:
            raise UnsupportedError(f"{collective} from {types[-2]} to {types[-1]} is several steps")
        steps += part.steps
    if types[-1] != dst:
        raise WrongError(f"Shardy's pass ends in {types[-1]}, not in {dst}")
    return make_plan(src, dst, "shardy", steps), elapsed
