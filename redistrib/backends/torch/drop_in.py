"""Our planner in the place of DTensor's: for `DTensor.redistribute` and what operators ask for.

All of DTensor's redistribution on one mesh goes through one function of torch, which three of its
modules hold; the method alone decides about a move to another mesh. They are replaced within a
`with`, and put back after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch.distributed.tensor._api as torch_api
import torch.distributed.tensor._dispatch as torch_dispatch
import torch.distributed.tensor._redistribute as torch_redistribute
from torch.distributed._functional_collectives import AsyncCollectiveTensor, _are_we_tracing
from torch.distributed.tensor import DTensor, Partial
from torch.distributed.tensor._dtensor_spec import DTensorSpec

from redistrib.backends.torch.layouts import layout_of
from redistrib.backends.torch.redistribute import Move, find_move, redistribute
from redistrib.errors import LayoutError, TypeSyntaxError

Tensor = Any

_LOCAL = "redistribute_local_tensor"
_HOLDERS = (torch_redistribute, torch_api, torch_dispatch)


@contextmanager
def redistribution() -> Iterator[None]:
    """Within it, DTensors are redistributed by our plans, explicitly and inside operators.

    The results are those of torch, on one mesh; `DTensor.redistribute` goes to another mesh too.
    torch's own redistribution stays for what becomes partial without having been so, for masks,
    norms and bitwise reductions, for the few uneven strided shards that `distribute_tensor` cuts
    otherwise than FSDP2, and where torch traces, as torch.compile does. With `async_op` the
    result is there at once too. It is for all threads of the process.

        with rtorch.redistribution():
            y = x.redistribute(placements=[Shard(1)])
    """
    original = getattr(torch_redistribute, _LOCAL)
    method = DTensor.redistribute

    def local(
        local_tensor: Tensor, current_spec: DTensorSpec, target_spec: DTensorSpec, **options: Any
    ) -> Tensor:
        move = _move(current_spec, target_spec)
        if move is None:
            return original(local_tensor, current_spec, target_spec, **options)
        if isinstance(local_tensor, AsyncCollectiveTensor):
            local_tensor = local_tensor.wait()
        on_mesh = current_spec.mesh.get_coordinate() is not None
        result = move(local_tensor if on_mesh else None)
        return local_tensor if result is None else result

    def to_any_mesh(
        self: DTensor,
        device_mesh: Any = None,
        placements: Sequence[Any] | None = None,
        **options: Any,
    ) -> DTensor:
        if device_mesh is None or placements is None or device_mesh == self.device_mesh:
            return method(self, device_mesh, placements, **options)
        return redistribute(self, device_mesh, placements)

    try:
        for holder in _HOLDERS:
            setattr(holder, _LOCAL, local)
        DTensor.redistribute = to_any_mesh
        yield
    finally:
        for holder in _HOLDERS:
            setattr(holder, _LOCAL, original)
        DTensor.redistribute = method


def _move(src: DTensorSpec, dst: DTensorSpec) -> Move | None:
    """The move between two specs; None where it is left to torch."""
    if _are_we_tracing() or src.mesh != dst.mesh or src.tensor_meta is None:
        return None
    for before, after in zip(src.placements, dst.placements, strict=True):
        if isinstance(after, Partial) and before != after:
            return None
    try:
        if not (layout_of(src).as_torch and layout_of(dst).as_torch):
            return None
        return find_move(src, dst)
    except (LayoutError, TypeSyntaxError):
        return None
