"""Plans under MPI: one rank per mesh position, buffers only, and all ranks raise together."""

from redistrib.errors import BackendError

try:
    from mpi4py import MPI as _MPI  # noqa: F401
except (ImportError, RuntimeError) as missing:  # the latter where mpi4py finds no MPI
    raise BackendError(
        f"the mpi backend needs mpi4py and an MPI: pip install 'redistrib[mpi,mpich]' ({missing})",
        backend="mpi",
    ) from missing

from redistrib.backends.model_messages import Progress
from redistrib.backends.mpi.arrays import Measured, gather, measure_array, run_array, scatter
from redistrib.backends.mpi.calibration import calibrate
from redistrib.backends.mpi.calls import Running
from redistrib.backends.mpi.model import ModelRedistribution
from redistrib.backends.mpi.one_shot import mesh_of, redistribute
from redistrib.backends.mpi.redistribution import Redistribution

__all__ = [
    "Measured",
    "ModelRedistribution",
    "Progress",
    "Redistribution",
    "Running",
    "calibrate",
    "gather",
    "measure_array",
    "mesh_of",
    "redistribute",
    "run_array",
    "scatter",
]
