"""What a redistribution is to do, as all its ranks agree: the ends, where they are, and how.

Example: `dst[0:2, :] = src[4:6, :]` of matrices of 8 and 2 rows, from the ranks 0 and 1 to rank 2.
The source's end is `f32[8{x}, 3]` on the ranks (0, 1) with the sub-array ((4, 6), (0, 3)), so rank
1 alone has something to send: the first two rows of its tile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from redistrib.backends.mpi.adding import Adding, adding, all_reduces
from redistrib.backends.mpi.checks import check_ends, element_type, ranks_of, subarray_of
from redistrib.backends.mpi.exchange import End, Phase
from redistrib.backends.mpi.flows import Channel
from redistrib.backends.mpi.layouts import Subarray
from redistrib.backends.mpi.options import Options
from redistrib.backends.mpi.phases import between, phases_of
from redistrib.backends.mpi.spread import Spread, parts_of, receives_once
from redistrib.backends.mpi.steps import steps_of
from redistrib.synth.plan.data import Plan
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.problem import Strategy
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh

Ends = tuple[ArrayType, ArrayType]
PlanFinder = Callable[[Ends | None, bool], Plan | None]
"""The plan between two types whose devices are ranks; None where one exchange is all there is.

Also given whether all ranks are on one node.
"""


def planner(
    strategy: Strategy, memory_limit: int | None, profile: Profile | str | None
) -> PlanFinder:
    """What plans as `redistrib.plan` with these options; to other ranks auto alone has a choice.

    The default profile has a link of its own for each device, so replicas on other ranks gather
    parts. On one node all share its memory: what counts there is the sum of what is sent, which is
    least where each rank is sent what it lacks, at once.
    """

    def find_plan(ends: Ends | None, one_node: bool) -> Plan | None:
        from redistrib.synth.planner.choose import plan

        fixed = strategy != "auto" or (profile is None and one_node)
        if ends is None or (ends[0].mesh != ends[1].mesh and fixed):
            return None
        return plan(*ends, strategy=strategy, memory_limit=memory_limit, profile=profile)

    return find_plan


@dataclass(frozen=True, slots=True)
class Problem:
    """Two types on ranks, and how one becomes the other.

    ranks: per position of either mesh. subarrays: of either array, None for all of it.
    plan: what the phases are made from; None between sub-arrays, and between two meshes or sets of
        ranks unless the target has replicas there and a profile or other nodes decide on them.
    """

    src: ArrayType
    dst: ArrayType
    ranks: tuple[tuple[int, ...], tuple[int, ...]]
    subarrays: tuple[Subarray | None, Subarray | None]
    plan: Plan | None
    dtype: np.dtype[Any]
    adding: Adding
    scratch: int
    options: Options

    @classmethod
    def of(
        cls,
        src: ArrayType,
        dst: ArrayType,
        find_plan: PlanFinder,
        options: Options,
        size: int,
        one_node: bool,
    ) -> Problem:
        """The problem on `size` ranks. Raises RedistribError for what is none."""
        options.timeout_checked()
        ranks = ranks_of(src, dst, options.src_ranks, options.dst_ranks, size)
        parts = (
            subarray_of(src, options.src_index, "src_index"),
            subarray_of(dst, options.dst_index, "dst_index"),
        )
        ends = _planned(src, dst, ranks) if parts == (None, None) else None
        plan = find_plan(ends, one_node)
        if plan is None or (options.fuse and src.mesh != dst.mesh):
            check_ends(src, dst, parts)
        dtype = element_type(src, dst, options.dtype)
        added = adding(src, dst, options.op, options.accumulate)
        options.check_with(src, dst)
        scratch = options.scratch_of(src, dst, dtype)
        return cls(src, dst, ranks, parts, plan, dtype, added, scratch, options)

    @property
    def for_people(self) -> str:
        """What a rank was given, for an error."""
        text = f"{self.src} -> {self.dst} of {self.dtype}"
        if self.ranks[0] != self.ranks[1]:
            text += f" from ranks {list(self.ranks[0])} to {list(self.ranks[1])}"
        for end, part in zip(("source", "target"), self.subarrays, strict=True):
            if part is not None:
                text += f", {end}[{', '.join(f'{low}:{high}' for low, high in part)}]"
        return f"{text}{self.adding}{self.options}"

    @property
    def in_full(self) -> str:
        """All that must be the same on all ranks."""
        planned = "" if self.plan is None else self.plan.to_json()
        meshes = f"{self.src.mesh} {self.dst.mesh}"
        return f"{self.for_people} {meshes} {self.ranks} {self.scratch} {planned}"

    @property
    def in_place(self) -> bool:
        """Whether a result may be its tile."""
        uncut = self.subarrays == (None, None)
        return uncut and self.ranks[0] == self.ranks[1] and all_reduces(self.src, self.dst)

    def ends(self, size: int, *, reverse: bool = False) -> tuple[End, End]:
        """The two ends on `size` ranks; `reverse`: with dimensions in reverse."""
        before, after = (
            End.on(t, ranks, size, part, reverse)
            for t, ranks, part in zip((self.src, self.dst), self.ranks, self.subarrays, strict=True)
        )
        return before, after

    def phases(self, channel: Channel, *, reverse: bool = False) -> list[Phase]:
        """What this rank does, phase by phase."""
        before, after = self.ends(channel.comm.size, reverse=reverse)
        arguments = channel, self.dtype, self.scratch
        if self.plan is not None and not self.options.fuse:
            return steps_of(self.plan, before, after, *arguments)
        if (parts_type := parts_of(self.plan)) is not None:
            parts = End.on(parts_type, self.ranks[1], channel.comm.size, None, reverse)
            if receives_once(before, parts, after):
                return [Spread(before, parts, after, channel, self.dtype.itemsize, self.scratch)]
            return [between(before, after, *arguments)]
        if self.plan is None or self.adding.custom or not self._has_addends:
            return [between(before, after, *arguments)]
        return phases_of(self.plan, before, *arguments)

    @property
    def _has_addends(self) -> bool:
        """Whether there are steps that an exchange cannot replace; on one mesh only."""
        return self.src.mesh == self.dst.mesh and bool(self.src.partial or self.dst.partial)


def _planned(src: ArrayType, dst: ArrayType, ranks: tuple[tuple[int, ...], ...]) -> Ends | None:
    """The types to plan between, on other ranks with these for devices.

    None where there is nothing to choose: to other ranks, without replicas there.
    """
    if src.mesh == dst.mesh and ranks[0] == ranks[1]:
        return src, dst
    if src.partial or dst.partial or src.uneven or dst.uneven or not (dst.size and dst.free_digits):
        return None
    before, after = (
        t.replace(mesh=Mesh(t.mesh.axes, devices=devices))
        for t, devices in zip((src, dst), ranks, strict=True)
    )
    return before, after
