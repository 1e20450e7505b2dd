"""Plans over torch.distributed: for tensors, DTensors and state dicts."""

from redistrib.errors import BackendError

try:
    import torch as _torch  # noqa: F401
except ImportError as missing:
    raise BackendError(
        f"the torch backend needs torch: pip install 'redistrib[torch]' ({missing})",
        backend="torch",
    ) from missing

from redistrib.backends.model_messages import Progress
from redistrib.backends.torch.arrays import run, run_array
from redistrib.backends.torch.calibration import calibrate
from redistrib.backends.torch.drop_in import redistribution
from redistrib.backends.torch.gradients import GradientSync
from redistrib.backends.torch.layouts import layout_of
from redistrib.backends.torch.model import ModelRedistribution, types_of
from redistrib.backends.torch.programs import (
    Program,
    Running,
    compile,  # noqa: A004 - the public name
)
from redistrib.backends.torch.redistribute import Pending, redistribute, target_spec

__all__ = [
    "GradientSync",
    "ModelRedistribution",
    "Pending",
    "Program",
    "Progress",
    "Running",
    "calibrate",
    "compile",
    "layout_of",
    "redistribute",
    "redistribution",
    "run",
    "run_array",
    "target_spec",
    "types_of",
]
