"""Every device in one process, with numpy: the reference semantics of plans, and their traffic.

`measure` runs the same code as `run` on tiles that hold the id of their own device: every
element that arrives then says who sent it. `run_model` runs plans of whole models.

>>> import numpy as np, redistrib as rd
>>> plan = rd.plan(("f32[4{x}]", rd.Mesh(x=2)), "f32[4]")
>>> tiles = run(plan, scatter(np.arange(4, dtype="f4"), plan.src))  # one tile for each device
>>> [tile.tolist() for tile in tiles], measure(plan).received_bytes
([[0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0]], 8)
"""

from redistrib.backends.simulator.arrays import gather, run, run_array, scatter
from redistrib.backends.simulator.models import ModelRun, run_model, scatter_model
from redistrib.backends.simulator.traffic import Measurement, measure

__all__ = [
    "Measurement",
    "ModelRun",
    "gather",
    "measure",
    "run",
    "run_array",
    "run_model",
    "scatter",
    "scatter_model",
]
