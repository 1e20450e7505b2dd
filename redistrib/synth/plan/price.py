"""What a step costs: alpha-beta per mesh axis, under a hardware profile (docs/oracle.md).

    seconds = latency * latencies + received bytes / (bandwidth * efficiency)

of the slowest link that the step crosses, on the mesh that it starts on; on a torus what several
rings have between them (`links.py`). An all_gather over 4 devices of tiles of 1 MB receives 3 MB;
under the default profile, 1 us and 100 GB/s, that takes 1 us + 30 us.

In an exchange onto another mesh it is what the worst device receives or sends, whichever is more:
one device may serve all others there. One that sends 1 MB to each of 4 takes 1 us + 40 us. It goes
over the link of the first level that holds the devices of both meshes, else the profile's own,
beside those of the source's owners: no axis leads to another mesh.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from redistrib.synth.plan.blocks import block_traffic
from redistrib.synth.plan.collectives import Collective, Exchange
from redistrib.synth.plan.profile import Profile
from redistrib.synth.plan.routing import Traffic, exchange_traffic
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit
from redistrib.types.mesh import Mesh
from redistrib.types.refinement import Refinement


@dataclass(frozen=True, slots=True)
class StepTraffic:
    """Bytes that the worst device receives and sends in one step, and the latencies it pays."""

    received_bytes: int
    sent_bytes: int
    latencies: int = 1

    def timed_bytes(self, step: Collective) -> int:
        """The bytes of a step that take time: what is sent too, where one may send to all."""
        return max(self.received_bytes, self.sent_bytes) if onto(step) else self.received_bytes


def onto(step: Collective) -> bool:
    """Whether a step goes onto another mesh."""
    return isinstance(step, Exchange) and step.mesh is not None


def step_traffic(
    step: Collective,
    before: ArrayType,
    after: ArrayType,
    known: Refinement | Traffic | None = None,
) -> StepTraffic:
    """The traffic of a step between two types.

    `known` is their refinement, or the answer for an exchange in elements, where that was found.
    """
    itemsize = before.itemsize
    if isinstance(step, Exchange) and step.blocks is not None:
        moved = block_traffic(before, after)
        return StepTraffic(moved.received * itemsize, moved.sent * itemsize, moved.peers)
    if isinstance(step, Exchange):
        traffic = known if isinstance(known, Traffic) else exchange_traffic(before, after, known)
        return StepTraffic(traffic.received * itemsize, traffic.sent * itemsize, traffic.peers)
    received = step.tile_traffic(before.tile_size)[0] * itemsize
    return StepTraffic(received, received, step.latencies)


def step_seconds(
    step: Collective, before: ArrayType, traffic: StepTraffic, profile: Profile
) -> float:
    """Time of a step from the type `before`."""
    if not step.communicates:
        return 0.0
    axes = step.crossed(before) if profile.by_axis else ()
    timed, latencies = traffic.timed_bytes(step), traffic.latencies
    return profile.seconds(axes, timed, latencies, step.collective, onto(step))


def exchange_seconds(
    src: ArrayType, dst: ArrayType, received: int, peers: int, profile: Profile
) -> float:
    """Time of an exchange in which the worst device receives so many elements."""
    axes = Exchange(dst.placements).crossed(src) if profile.by_axis else ()
    return profile.seconds(axes, received * src.itemsize, peers, Exchange.collective)


def price_step(
    step: Collective, tile: int, itemsize: int, profile: Profile
) -> tuple[int, int, float]:
    """Of a step other than an exchange: bytes received, elements of the tile after it, seconds."""
    assert not isinstance(step, Exchange), "the traffic of an exchange depends on both its types"
    elements, after = step.tile_traffic(tile)
    received = elements * itemsize
    if not step.communicates:
        return received, after, 0.0
    return received, after, profile.seconds(step.axes, received, step.latencies, step.collective)


@dataclass(frozen=True, slots=True)
class StepCost:
    """One step: seconds, bytes that its worst device receives, bytes of the tile after it.

    And its rounds, each with a latency; 0 for a local step.
    """

    seconds: float
    received_bytes: int
    tile_bytes: int
    communicates: bool
    latencies: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a plan costs: estimated seconds, bytes per device, and communicating steps.

    `received_bytes` is the sum over steps of what that step's worst device receives from others.
    `peak_tile_bytes` is the largest tile at the ends and between steps, `live_bytes` the most bytes
    of tiles alive at once, the source among them to the end. `latencies` are the rounds of all
    steps together.
    """

    seconds: float
    received_bytes: int
    peak_tile_bytes: int
    num_collectives: int
    live_bytes: int
    latencies: int


@dataclass(frozen=True, slots=True)
class Term:
    """What a communicating step takes, whatever the links: its price is linear in these.

    `axes` are the digits that it crosses, of `mesh`, the one before it; `timed_bytes` what its
    worst device receives, or sends onto another mesh; `onto` that mesh, if it goes to another.
    """

    collective: str
    axes: tuple[DeviceDigit, ...]
    latencies: int
    timed_bytes: int
    mesh: Mesh
    onto: Mesh | None

    def seconds(self, profile: Profile) -> float:
        """Its seconds under a profile."""
        links, onto = profile.on(self.mesh, self.onto), self.onto is not None
        axes = self.axes if links.by_axis else ()
        return links.seconds(axes, self.timed_bytes, self.latencies, self.collective, onto)


def price_steps(
    src: ArrayType,
    dst: ArrayType,
    steps: Sequence[Collective],
    profile: Profile,
    known: Refinement | Traffic | None = None,
    dst_profile: Profile | None = None,
) -> tuple[StepCost, ...]:
    """What each step of a plan costs, under a profile with its links on the mesh of the source.

    `dst_profile` has those on the mesh of the target, if that is another. `known` is the refinement
    of the ends or the traffic of the exchange, where that was found. Types between the steps are
    made only where there is an exchange.
    """
    costs = []
    held, itemsize = src.tile_size, src.itemsize
    for number, step in enumerate(steps):
        if isinstance(step, Exchange):
            before, after = src, dst
            if len(steps) > 1:
                for earlier in steps[:number]:
                    before = earlier.apply(before)
                after = step.apply(before)
                known = known if isinstance(known, Traffic) else None
            traffic = step_traffic(step, before, after, known)
            received, held, latencies = traffic.received_bytes, after.tile_size, traffic.latencies
            seconds = step_seconds(step, before, traffic, profile)
            profile = dst_profile if onto(step) and dst_profile is not None else profile
        else:
            received, held, seconds = price_step(step, held, itemsize, profile)
            latencies = step.latencies if step.communicates else 0
        costs.append(StepCost(seconds, received, held * itemsize, step.communicates, latencies))
    return tuple(costs)


def total_seconds(steps: Iterable[StepCost]) -> float:
    """The seconds of a plan, added in the order of its steps.

    One by one, as prices of batches are; `sum` of floats rounds otherwise since Python 3.12.
    """
    seconds = 0.0
    for step in steps:
        seconds += step.seconds
    return seconds


def total_cost(src: ArrayType, steps: Sequence[StepCost]) -> Cost:
    """The cost of a plan from the type `src`."""
    tiles = [src.tile_bytes, *(step.tile_bytes for step in steps)]
    between = [0, *tiles[1:]]  # of the first step the input is the source
    return Cost(
        total_seconds(steps),
        sum(step.received_bytes for step in steps),
        max(tiles),
        sum(step.communicates for step in steps),
        tiles[0] + max([a + b for a, b in zip(between, tiles[1:], strict=False)], default=0),
        sum(step.latencies for step in steps),
    )
