"""Gradients summed over ranks in buckets, while the backward pass still runs.

A bucket is one flat array of several parameters, partial over the ranks; its plan makes it whole
(DDP's all_reduce) or gives each rank a part of it (ZeRO's reduce_scatter; a rank then updates its
part of the parameters, and another plan gathers them). On 4 ranks, for 100 elements:

    f32[100] sum{dp}  ->  f32[100]       every rank steps all parameters
    f32[100] sum{dp}  ->  f32[100{dp}]   every rank steps 25 of them; f32[100{dp}] -> f32[100]

Law: all ranks begin the buckets in one order, whatever order gradients come in: a bucket waits for
those before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from redistrib.backends.torch.choices import planned
from redistrib.backends.torch.dtypes import short_name
from redistrib.backends.torch.layouts import mesh_of
from redistrib.backends.torch.programs import (
    Program,
    Running,
    backend_of,
    check_initialized,
    compile,  # noqa: A004 - the public name
    device_of,
)
from redistrib.errors import BackendError
from redistrib.types.array_type import ArrayType

Tensor = Any
DeviceMesh = Any
BUCKET = 25 << 20
"""Bytes of a bucket, as DDP has it."""


@dataclass(slots=True)
class _Bucket:
    """Some parameters as one flat array, and what has become of it in this step."""

    parameters: list[Tensor]
    flat: Tensor
    reduce: Program
    gather: Program | None
    shard: Tensor | None
    missing: set[int] = field(default_factory=set)
    running: Running | None = None

    def views(self, flat: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Each parameter with its part of a flat array."""
        start = 0
        for parameter in self.parameters:
            end = start + parameter.numel()
            yield parameter, flat[start:end].view(parameter.shape)
            start = end


class GradientSync:
    """Sums the gradients of parameters over the ranks of a mesh.

    Hooks fill a bucket as gradients come, and begin its plan once it is full; `wait`, after the
    backward pass, ends all of them. Parameters are the same on all ranks at first.

    mesh: a DeviceMesh; gradients are reduced over all of its dimensions.
    shard: each rank gets a part of every bucket only. `shards` are then its parts of the
        parameters, for the optimizer; `wait` leaves their gradients in `shards`, and after the
        optimizer's step `gather` writes all parameters.
    average: gradients are divided by the number of ranks, as DDP does.
    bucket_bytes: at least one parameter is in a bucket; more are while they stay within this.
    """

    shards: list[Tensor]

    def __init__(
        self,
        parameters: Iterable[Tensor],
        mesh: DeviceMesh,
        *,
        shard: bool = False,
        average: bool = True,
        bucket_bytes: int = BUCKET,
    ) -> None:
        check_initialized()
        self._ranks, self._average, self._shard = mesh.size(), average, shard
        self._synced, self._next = True, 0
        trained = [p for p in parameters if p.requires_grad]
        if not trained:
            raise BackendError("gradients are of parameters that require them; got none")
        # The last parameters have their gradients first.
        cut = _cut(trained[::-1], bucket_bytes)
        self._buckets = [self._bucket(some, mesh) for some in cut]
        self.shards = [bucket.shard for bucket in self._buckets if bucket.shard is not None]
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(self._hook(bucket))
            for bucket in self._buckets
            for parameter in bucket.parameters
        ]
        self._begin_step()

    def _bucket(self, parameters: list[Tensor], mesh: DeviceMesh) -> _Bucket:
        like = parameters[0]
        size = sum(parameter.numel() for parameter in parameters)
        if self._shard:
            size = -(-size // self._ranks) * self._ranks
        on = mesh_of(mesh)
        axes = [name for name, length in on.axes if length > 1]
        replicated = ArrayType(on, short_name(like.dtype), (size,))
        end = replicated.replace(dims=[axes]) if self._shard else replicated
        backend = backend_of(device_of(mesh))
        flat = torch.zeros(size, dtype=like.dtype, device=like.device)
        reduce = compile(planned(replicated.replace(partial=axes), end, backend), mesh)
        bucket = _Bucket(parameters, flat, reduce, None, None)
        if self._shard:
            bucket.gather = compile(planned(end, replicated, backend), mesh)
            for parameter, view in bucket.views(flat):
                view.copy_(parameter.detach())
            place = end.tile(reduce.placed.position(on) or 0)[0]
            part = flat[int(place[0]) : int(place[-1]) + 1].clone()
            bucket.shard = torch.nn.Parameter(part)
        return bucket

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Within it, gradients add up on each rank; the next backward pass outside sums them."""
        synced, self._synced = self._synced, False
        try:
            yield
        finally:
            self._synced = synced

    def start(self) -> None:
        """Begin the buckets that are not full: parameters without a gradient count as zeros."""
        for bucket in self._buckets[self._next :]:
            self._start(bucket)

    def wait(self) -> None:
        """End all buckets: what is summed is in `grad` of the parameters, or of the shards."""
        self.start()
        for bucket in self._buckets:
            assert bucket.running is not None
            summed = bucket.running.wait()
            if self._average:
                summed = summed / self._ranks
            if bucket.shard is not None:
                bucket.shard.grad = summed
                for parameter in bucket.parameters:
                    parameter.grad = None
                continue
            for parameter, view in bucket.views(summed):
                if parameter.grad is None:
                    parameter.grad = view.clone()
                else:
                    parameter.grad.copy_(view)
        self._begin_step()

    def gather(self) -> None:
        """Write all parameters from the shards of all ranks, which the optimizer has stepped."""
        begun = [
            (bucket, bucket.gather.start(bucket.shard.detach()))
            for bucket in self._buckets
            if bucket.gather is not None and bucket.shard is not None
        ]
        for bucket, running in begun:
            for parameter, view in bucket.views(running.wait()):
                parameter.detach().copy_(view)

    def close(self) -> None:
        """Take the hooks off the parameters."""
        for hook in self._hooks:
            hook.remove()

    def _begin_step(self) -> None:
        self._next = 0
        for bucket in self._buckets:
            bucket.missing = {id(parameter) for parameter in bucket.parameters}
            bucket.running = None

    def _hook(self, bucket: _Bucket) -> Any:
        def arrived(parameter: Tensor) -> None:
            if not self._synced:
                return
            bucket.missing.discard(id(parameter))
            while self._next < len(self._buckets) and not self._buckets[self._next].missing:
                self._start(self._buckets[self._next])

        return arrived

    def _start(self, bucket: _Bucket) -> None:
        for parameter, view in bucket.views(bucket.flat):
            if parameter.grad is None:
                view.zero_()
            else:
                view.copy_(parameter.grad)
        bucket.running = bucket.reduce.start(bucket.flat)
        self._next += 1


def _cut(parameters: list[Tensor], bucket_bytes: int) -> Iterator[list[Tensor]]:
    """Parameters in order, together while they have one dtype and device and so many bytes."""
    bucket: list[Tensor] = []
    for parameter in parameters:
        alike = not bucket or (
            (parameter.dtype, parameter.device) == (bucket[0].dtype, bucket[0].device)
            and sum(p.nbytes for p in bucket) + parameter.nbytes <= bucket_bytes
        )
        if not alike:
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket
