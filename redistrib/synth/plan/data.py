"""A plan: steps between two types and their cost, and how it is written, transposed and shown.

>>> from redistrib.synth.plan.collectives import AllGather
>>> from redistrib.types.digits import DeviceDigit, IndexDigit
>>> from redistrib.types.mesh import Mesh
>>> src, dst = (ArrayType.parse(text, Mesh(x=2)) for text in ("f32[8{x}]", "f32[8]"))
>>> gather = AllGather(((DeviceDigit("x", 1, 2), IndexDigit(0, 1, 2)),))
>>> plan = make_plan(src, dst, "collectives", [gather])
>>> plan.received_bytes, plan.lower_bound_bytes, plan.transpose().steps[0].collective
(16, 16, 'reduce_scatter')
>>> Plan.from_json(plan.to_json()) == plan
True
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from redistrib.display import to_html, to_text, write_page
from redistrib.errors import LayoutError
from redistrib.synth.plan.bounds import lower_bound_elements
from redistrib.synth.plan.collectives import Collective
from redistrib.synth.plan.json import read_plan, write_plan
from redistrib.synth.plan.price import step_traffic
from redistrib.synth.plan.priced_steps import PricedSteps, seconds_of
from redistrib.synth.plan.profile import DEFAULT_PROFILE, Profile
from redistrib.synth.plan.transpose import transposed
from redistrib.types.array_type import ArrayType
from redistrib.types.equivalence import on_mesh
from redistrib.types.padding import padded
from redistrib.types.refinement import Refinement, refine


@dataclass(frozen=True, slots=True)
class Plan(PricedSteps):
    """Steps from the type `src` to the type `dst`, and what they take; `redistrib.plan` makes one.

    All sizes are bytes per device, those of the worst device.

    strategy: the one that was asked for; "custom" where a function of the caller's made the steps.
    steps: collectives, in order. types: before, between and after them, one more than steps. If
        `dst` is on another mesh, the last one may be its equivalent on the mesh of `src`.
    traffic: per step what its worst device receives and sends; `received_bytes` and `sent_bytes`
        are the sums.
    seconds: an estimate, under `profile`. memory_limit: the one that was asked for, if any.
    lower_bound_bytes: what some device receives under any plan.
    peak_tile_bytes: the largest tile of `types`. live_bytes: the largest sum of tiles that are
        there at once: the source, which is kept, and the input and output of a step.
    padded_shape: where `src` or `dst` is uneven and this is given, types and steps are those of the
        array padded to this shape, of whose tiles the real ones are the corners.
    """

    def to_json(self) -> str:
        """The plan as JSON text, the same for the same problem in every process."""
        return write_plan(self)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan in a JSON text; its figures are computed anew.

        A plan of version 1 is priced under the default profile. Raises RedistribError if the text
        is no JSON, of another format, incomplete or ill-typed.
        """
        return make_plan(**read_plan(text))

    def transpose(self) -> Plan:
        """The plan of the transposed linear map, from the dual of `dst` to the dual of `src`.

        It keeps the profile and the memory limit: its tiles have the sizes of those of the plan.

        Raises LayoutError for uneven types; where the transpose is a sum that no one step of ours
        is: of an exchange whose replicas change, of a table permute among replicas; and for a
        reduction other than sum, which is not linear. A target on another mesh of the same devices
        is taken as the plan has it, on the mesh of the source.
        """
        dual = make_plan(*transposed(self), self.profile, self.memory_limit)
        summed = dual.src.partial or dual.dst.partial
        if (
            dual.strategy == "direct"
            and not summed
            and dual.received_bytes > dual.lower_bound_bytes
        ):
            return replace(dual, strategy="custom")  # gathers for reductions: not what direct gives
        return dual

    def to_html(self, path: str | Path) -> None:
        """Write the plan as a standalone HTML page. Raises OSError where that fails."""
        write_page(self, path)

    def _repr_html_(self) -> str:
        return to_html(self)

    def __str__(self) -> str:
        return to_text(self)


def check_even(plan: Plan, consumer: str) -> None:
    """Raise LayoutError, as `consumer` takes even types alone, where an end of a plan is uneven."""
    for t in (plan.src, plan.dst):
        if t.uneven:
            raise LayoutError(
                f"{consumer} takes even types, whose tiles have one shape; got {t}; uneven ones "
                f"run on the simulator, under MPI and torch, or pad the dimension",
                type=t,
            )


def make_plan(
    src: ArrayType,
    dst: ArrayType,
    strategy: str,
    steps: Iterable[Collective],
    profile: Profile = DEFAULT_PROFILE,
    memory_limit: int | None = None,
    refinement: Refinement | None = None,
    padded_shape: tuple[int, ...] | None = None,
) -> Plan:
    """The plan of these steps, typed and priced.

    Raises LayoutError if they do not end in `dst`, or the rule of one does not hold of its type.

    `profile` is taken with its links on the mesh of the source. `refinement` is that of the two
    types, where it is known already.
    """
    steps = tuple(steps)
    start, end = src, dst
    if padded_shape is not None:
        start, end = padded(src, padded_shape), padded(dst, padded_shape)
    # The target of a plan within one mesh may be given on another mesh of the same devices.
    target = on_mesh(end, start.mesh) or end
    if target.mesh == start.mesh and not (start.uneven or end.uneven):
        refinement = refinement or refine(start, target)
    types = [start]
    for step in steps:
        types.append(step.apply(types[-1]))
    if types[-1] not in (target, end):
        raise LayoutError(f"the steps of a plan end in {end}; got {types[-1]}", src=src, dst=dst)
    traffic = tuple(
        step_traffic(step, before, after, refinement if len(steps) == 1 else None)
        for step, before, after in zip(steps, types, types[1:], strict=False)
    )
    seconds = 0.0
    for duration in seconds_of(steps, types, traffic, profile):
        seconds += duration
    if padded_shape is not None:  # a bound is of real elements
        target, refinement = on_mesh(dst, src.mesh) or dst, None
    bound = lower_bound_elements(src, target, refinement) * src.itemsize
    figures = traffic, seconds, bound, memory_limit, profile, padded_shape
    return Plan(src, dst, strategy, steps, tuple(types), *figures)
