"""What is allocated and received, from torch's own account: its allocator, and its operators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from torch._C._autograd import _disable_profiler_legacy, _enable_profiler_legacy
from torch._C._distributed_c10d import ProcessGroup
from torch._C._profiler import _ExperimentalConfig
from torch.autograd import ProfilerConfig, ProfilerState
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(slots=True)
class Allocations:
    """Of the CPU's allocator, in order: bytes taken, and below zero bytes given back."""

    events: list[int] = field(default_factory=list)

    @property
    def peak(self) -> int:
        """The most that was there beside what was there at first."""
        return max([0, *accumulate(self.events)])

    @property
    def largest(self) -> int:
        """The largest piece of memory that was taken."""
        return max([0, *self.events])


@contextmanager
def allocations() -> Iterator[Allocations]:
    """What this process allocates and frees within it; known after it.

    What was allocated outside of any such block is not seen when it is freed.
    """
    found = Allocations()
    settings = ProfilerState.CPU, False, True, False, False, False, _ExperimentalConfig()
    _enable_profiler_legacy(ProfilerConfig(*settings))  # the other takes seconds to begin
    try:
        yield found
    finally:
        records = [record for thread in _disable_profiler_legacy() for record in thread]
    found.events = [r.cpu_memory_usage() for r in records if r.kind() == "memory_alloc"]


class Received(TorchDispatchMode):
    """Bytes that operators of torch.distributed bring to this rank, within it.

    Of an all_reduce of n ranks that is each of n parts, but its own, as an addend and as a sum.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func.namespace == "c10d":
            size = sum(tensor.nbytes for tensor in args[0])
            name = func._schema.name
            if name == "c10d::recv_":
                self.bytes += size
            elif name == "c10d::allreduce_":
                ranks = ProcessGroup.unbox(args[1]).size()
                self.bytes += 2 * (size - size // ranks)
            else:
                assert name == "c10d::send", name
        return func(*args, **(kwargs or {}))
