"""Plans as one jitted jax program: one shard_map, with the collectives of jax.lax.

`reshard` and `compile` take and give NamedShardings; `run` takes and gives lists of tiles, for
every type, those included that no PartitionSpec can express. `tile_program` serves inside a
shard_map.
"""

from redistrib.errors import BackendError

try:
    import jax as _jax  # noqa: F401
except ImportError as missing:
    raise BackendError(
        f"the jax backend needs jax: pip install 'redistrib[jax]' ({missing})", backend="jax"
    ) from missing

from redistrib.backends.jax.calibration import calibrate
from redistrib.backends.jax.explain import Explanation, explain
from redistrib.backends.jax.lowering import chunk_dim, chunked_program, tile_program
from redistrib.backends.jax.optimize import optimize
from redistrib.backends.jax.programs import (
    compile,  # noqa: A004 - the public name
    compile_stacked,
    dtypes_of,
    named_sharding,
    run,
    run_array,
    virtual_devices,
)
from redistrib.backends.jax.reshard import cache_info, reshard
from redistrib.backends.jax.trees import Progress, reshard_tree

__all__ = [
    "Explanation",
    "Progress",
    "cache_info",
    "calibrate",
    "chunk_dim",
    "chunked_program",
    "compile",
    "compile_stacked",
    "dtypes_of",
    "explain",
    "named_sharding",
    "optimize",
    "reshard",
    "reshard_tree",
    "run",
    "run_array",
    "tile_program",
    "virtual_devices",
]
