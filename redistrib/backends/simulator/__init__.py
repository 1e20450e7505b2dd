"""Every device in one process, with numpy: the reference semantics of plans, and their traffic.

`measure` runs the same code as `run` on tiles that hold the id of their own device: every
element that arrives then says who sent it. `run_model` runs plans of whole models.
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
