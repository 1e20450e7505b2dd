"""Bugs in the planner: aligned and misaligned pairs, reductions, exact search."""

from tests.mutants.mutant import Mutant

PLANNER = "redistrib/synth/planner/choose.py"
PROBLEM = "redistrib/synth/planner/problem.py"
FLOORS = "redistrib/synth/planner/floors.py"
ALIGNED = "redistrib/synth/planner/three_phase.py"
CHAINS = "redistrib/synth/planner/chains.py"
MISALIGNED = "redistrib/synth/planner/halfway.py"
HALFWAY_TYPE = "redistrib/synth/planner/halfway_type.py"
MEETING = "redistrib/synth/planner/meeting.py"
CANDIDATE = "redistrib/synth/planner/candidate.py"
NEAR = "redistrib/synth/planner/near.py"
REDUCTIONS = "redistrib/synth/planner/reductions.py"
EXACT = "redistrib/synth/planner/exact.py"
GRAPH = "redistrib/synth/planner/type_graph.py"
PRIMES = "redistrib/synth/planner/prime_digits.py"
ACROSS = "redistrib/synth/planner/across.py"

MUTANTS = (
    Mutant(
        "a memory limit has to hold the smaller end only",
        PROBLEM,
        "make_problem",
        "max(src.tile_bytes, dst.tile_bytes)",
        "min(src.tile_bytes, dst.tile_bytes)",
    ),
    Mutant(
        "tiles between aligned types may be as large as the larger end",
        PROBLEM,
        "Problem.limit",
        "min(sizes) if small else max(sizes)",
        "max(sizes)",
    ),
    Mutant(
        "a memory limit in bytes is taken for one in elements",
        PROBLEM,
        "Problem.limit",
        "self.memory_limit // self.src.itemsize",
        "self.memory_limit",
    ),
    Mutant(
        "the first candidate is chosen, whatever the others cost",
        CANDIDATE,
        "cheapest",
        "best is None or found.seconds < bound",
        "best is None",
    ),
    Mutant(
        "the dearest candidate is chosen",
        CANDIDATE,
        "cheapest",
        "found.seconds < bound",
        "found.seconds > bound",
    ),
    Mutant(
        "an infeasible answer names a limit at which there is no plan either",
        PLANNER,
        "_least_limit",
        "cheapest(larger, collectives(larger))",
        "replace(larger)",
    ),
    Mutant(
        "what becomes partial at the end does not",
        CANDIDATE,
        "on_whole.solve",
        "[*opening, *found.make(), *closing]",
        "[*opening, *found.make()]",
    ),
    Mutant(
        "no search starts where it could win",
        CANDIDATE,
        "cheapest",
        "bound * (1 - ROUNDING) <= floor",
        "bound * (1 - ROUNDING) >= floor",
    ),
    Mutant(
        "the floor of a gather over several links has the latency of each",
        FLOORS,
        "Floor._growing",
        "max(latency, least)",
        "latency + 2 * least",
    ),
    Mutant(
        "the floor of what moves has all of it on the slowest link",
        FLOORS,
        "Floor._shared",
        "max(0, elements - slower)",
        "elements",
    ),
    Mutant(
        "digits that stay where they are move too",
        CHAINS,
        "find_chains",
        "(d in before or d in after) and before.get(d) != after.get(d)",
        "d in before or d in after",
    ),
    Mutant(
        "the routes of a permute run against the chain",
        ALIGNED,
        "lowerings",
        "[*zip(u[1:], u, strict=False), (u[0], u[-1])]",
        "[*zip(u, u[1:], strict=False), (u[-1], u[0])]",
    ),
    Mutant(
        "a permute forgets the route back to the start of a ring",
        ALIGNED,
        "lowerings",
        "[*zip(u[1:], u, strict=False), (u[0], u[-1])]",
        "[*zip(u[1:], u, strict=False)]",
    ),
    Mutant(
        "the permute before the all_to_all is dropped",
        ALIGNED,
        "lowerings",
        "[CollectivePermute(tuple(routes)), *([AllToAll(tuple(last))] if last else [])]",
        "[AllToAll(tuple(last))] if last else [CollectivePermute(tuple(routes))]",
    ),
    Mutant(
        "after the permute the first digit of a path moves, not the last",
        ALIGNED,
        "lowerings",
        "Move(u[-1], b[0], b[-1])",
        "Move(u[0], b[0], b[-1])",
    ),
    Mutant(
        "the all_to_all that vacates a place goes second",
        ALIGNED,
        "_vacate_and_settle",
        "[AllToAll(tuple(vacate)), AllToAll(tuple(settle))]",
        "[AllToAll(tuple(settle)), AllToAll(tuple(vacate))]",
    ),
    Mutant(
        "an early gather may exceed the limit",
        ALIGNED,
        "_price",
        "exceeds or ((early or early_spreads or late or late_scatters) and tile > limit)",
        "exceeds",
    ),
    Mutant(
        "an early gather goes before the slices",
        ALIGNED,
        "_opening",
        """
if early:
    steps.append(AllGather(early))
""",
        """
if early:
    steps.insert(0, AllGather(early))
""",
    ),
    Mutant(
        "an idle axis is sliced in where it is gathered, and the reverse",
        CHAINS,
        "_closed",
        """
return Choice(
    (*chain.devices, *parts),
    (*along, first),
    slices=((parts[0], last),),
    gathers=((parts[-1], first),),
    takes=closer.devices,
)
""",
        """
return Choice(
    (*chain.devices, *parts),
    (*along, first),
    slices=((parts[0], first),),
    gathers=((parts[-1], last),),
    takes=closer.devices,
)
""",
    ),
    Mutant(
        "spare places may overlap",
        ALIGNED,
        "place_spares",
        "run.size // used[run]",
        "run.size",
    ),
    Mutant(
        "an idle axis may be used by two chains",
        ALIGNED,
        "_spares_of",
        """
taken = [choice.takes for choice in choices if choice.takes]
if taken and len(set(taken)) < len(taken):
    ...
""",
        """
taken = [choice.takes for choice in choices if choice.takes]
if taken and len(taken) > len(choices):
    ...
""",
    ),
    Mutant(
        "a chain that is left to another one may be left by all",
        ALIGNED,
        "_spares_of",
        "any(choice.leaves and choice.leaves not in taken for choice in choices)",
        "all(choice.leaves for choice in choices)",
    ),
    Mutant(
        "idle axes are never used",
        CHAINS,
        "idle_choices",
        "Choice(slices=(part,), gathers=(part,), takes=(digit,))",
        "Choice(takes=(part[0],))",
    ),
    Mutant(
        "a partial axis is sliced instead of reduced",
        REDUCTIONS,
        "_parted",
        "of_digits, tuple(p for p in placings if p not in of_digits)",
        "(), placings",
    ),
    Mutant(
        "a digit that is to be reduced late is sliced",
        ALIGNED,
        "_price",
        """
late_scatters, late = roles.part_reduced(late)
early_spreads, early = roles.part_produced(early)
""",
        """
late_scatters, late = (), late
early_spreads, early = roles.part_produced(early)
""",
    ),
    Mutant(
        "a digit that becomes partial early is gathered",
        ALIGNED,
        "_price",
        """
late_scatters, late = roles.part_reduced(late)
early_spreads, early = roles.part_produced(early)
""",
        """
late_scatters, late = roles.part_reduced(late)
early_spreads, early = (), early
""",
    ),
    Mutant(
        "addends of a sum are renamed into those of a maximum",
        ALIGNED,
        "_renamed",
        "src.reduction != roles.reduction",
        "src.reduction is None",
    ),
    Mutant(
        "addends that change devices may be gathered",
        ALIGNED,
        "_movable",
        "all(index.dim != ADDENDS for index in touched)",
        "touched is not None",
    ),
    Mutant(
        "an all_to_all moves addends like owners",
        ALIGNED,
        "lowerings",
        "any(i.dim == ADDENDS for _, b in moving for i in b)",
        "moving is None",
    ),
    Mutant(
        "the dearest combination is taken",
        ALIGNED,
        "_cheapest",
        """
if priced is not None and priced[0] < bound:
    cheapest, bound = priced, priced[0]
""",
        """
if priced is not None:
    cheapest = priced
""",
    ),
    Mutant(
        "relaxed ends may exceed the limit",
        MISALIGNED,
        "plan_misaligned",
        """
if size > limit:
    raise _too_large(src, limit, size)
""",
        """
if size > 4 * limit:
    raise _too_large(src, limit, size)
""",
    ),
    Mutant(
        "gather all, slice all may exceed the limit",
        MISALIGNED,
        "plan_misaligned",
        "src.size > limit",
        "src.size > 4 * limit",
    ),
    Mutant(
        "the all_to_all from halfway runs from the end",
        HALFWAY_TYPE,
        "backwards",
        "Move(d, halfway.owned[d], i)",
        "Move(d, i, halfway.owned[d])",
    ),
    Mutant(
        "a halfway type forgets the partial axes",
        HALFWAY_TYPE,
        "with_placements",
        "like.replace(placements=placements)",
        "like.replace(placements=placements, partial=())",
    ),
    Mutant(
        "the aligned and the misaligned components change places",
        MISALIGNED,
        "_in_two",
        "c.aligned == aligned_first",
        "c.aligned != aligned_first",
    ),
    Mutant(
        "joining two halfway types costs no permute",
        MEETING,
        "MeetingSearch._seconds",
        "merge_state(first.owned) ^ merge_state(last.owned)",
        "merge_state(first.owned) & merge_state(last.owned)",
    ),
    Mutant(
        "partial axes count as free halfway",
        MEETING,
        "MeetingSearch._cuts",
        "d not in o and d not in self.pinned",
        "d not in o",
    ),
    Mutant(
        "a block that is owned halfway may end between the digits of an end",
        MEETING,
        "MeetingSearch._blocks",
        "all(c % b == 0 or b % c == 0 for b in (*bounds, *chain))",
        "all(c % b == 0 or b % c == 0 for b in chain)",
    ),
    Mutant(
        "halfway only as much is owned as at either end, so that nothing idle helps",
        MEETING,
        "MeetingSearch._uses",
        "map(set, zip(least, most, strict=True))",
        "map(set, zip(least, least, strict=True))",
    ),
    Mutant(
        "a maximum over the axes of a sum is kept",
        REDUCTIONS,
        "partial_roles",
        "before & after if src.reduction == dst.reduction else frozenset()",
        "before & after",
    ),
    Mutant(
        "the rest of a placed digit begins where its part does",
        REDUCTIONS,
        "fill_runs",
        "part.end",
        "part.pre",
    ),
    Mutant(
        "reducing a part of a digit forgets the rest of it",
        REDUCTIONS,
        "PartialRoles.without",
        "split_off(whole, part)",
        "[]",
    ),
    Mutant(
        "reductions find no place below what is owned",
        REDUCTIONS,
        "local_runs",
        "n > pre",
        "n < pre",
    ),
    Mutant(
        "an owner is spread over a partial axis twice",
        REDUCTIONS,
        "make_partial",
        "roles.without(roles.produce, [device for device, _ in spread])",
        "tuple(sorted(roles.produce))",
    ),
    Mutant(
        "a reduction comes last though the tile before it is too large",
        REDUCTIONS,
        "reduce_last",
        "end.tile_size > limit",
        "end.tile_size < 0",
    ),
    Mutant(
        "one reduction of all ignores the limit",
        REDUCTIONS,
        "_reduced_once",
        "t == dst or t.tile_size <= limit",
        "t.tile_size > 0",
    ),
    Mutant(
        "one reduction of all reduces what is to stay partial",
        REDUCTIONS,
        "_reduced_once",
        "roles.without(t.partial, sorted(roles.kept))",
        "t.partial",
    ),
    Mutant(
        "the estimate of the exact search ignores what is there already",
        EXACT,
        "ExactSearch.lower_bound",
        "self._wanted - (overlap if overlap < tile else tile)",
        "self._wanted",
    ),
    Mutant(
        "the exact search passes types above the limit",
        EXACT,
        "ExactSearch._after",
        "self.limit",
        "4 * self.limit",
    ),
    Mutant(
        "a source above the limit is not sliced in one step",
        EXACT,
        "ExactSearch._after",
        "node.within is not None or node.state == self.start",
        "node.within is not None",
    ),
    Mutant(
        "every device must receive all of a partial target",
        EXACT,
        "ExactSearch.lower_bound",
        "self.dst.partial",
        "self.dst.partial and self.src.partial",
    ),
    Mutant(
        "floats take detours through a sum",
        EXACT,
        "reductions_between",
        'src.dtype[0] in "iu"',
        'src.dtype[0] in "iuf"',
    ),
    Mutant(
        "the least memory is that of the largest type of any path",
        EXACT,
        "ExactSearch.least_tile",
        "max(largest, graph.tile(state))",
        "largest + graph.tile(state)",
    ),
    Mutant(
        "an all_reduce costs what a reduce_scatter does",
        GRAPH,
        "TypeGraph._all_reduces",
        "tile + (size - 2) * -(-tile // size)",
        "tile - -(-tile // size)",
    ),
    Mutant(
        "reduce_scatters are not searched",
        GRAPH,
        "TypeGraph.edges",
        "yield from self._scatters(number, places, beside, tile)",
        "pass",
    ),
    Mutant(
        "a permute moves no partial digits",
        GRAPH,
        "TypeGraph.edges",
        "yield from self._role_permutes(number, places, tile)",
        "pass",
    ),
    Mutant(
        "a search near the ends keeps the first sequence, not the cheapest",
        EXACT,
        "ExactSearch.run",
        "reached < distances.get(after, inf)",
        "after not in distances",
    ),
    Mutant(
        "a search near the ends knows no index digits but those of the ends",
        NEAR,
        "_spares",
        "yield index",
        "yield from ()",
    ),
    Mutant(
        "an all_reduce never comes before what moves",
        REDUCTIONS,
        "openings",
        "yield [step], step.apply(src)",
        "pass",
    ),
    Mutant(
        "copies never become partial in the end",
        REDUCTIONS,
        "closings",
        "yield whole, [ReplicatedToPartial(tuple(sorted(roles.produce)), roles.reduction)]",
        "pass",
    ),
    Mutant(
        "between two meshes one copy of a tile sends all",
        "redistrib/synth/plan/crossing.py",
        "crossing",
        "_matched(idle, asking)",
        "()",
    ),
    Mutant(
        "what a device on both meshes keeps is asked of another one",
        "redistrib/synth/plan/crossing.py",
        "_with_kept",
        "np.subtract.at(served, sender, own)",
        "pass",
    ),
    Mutant(
        "an array may be a sum and a maximum at once",
        GRAPH,
        "TypeGraph._local",
        "used <= {SUM - n}",
        "used is not None",
    ),
    Mutant(
        "an all_to_all goes where another of its digits leaves",
        GRAPH,
        "TypeGraph._assign",
        "allowed & local",
        "allowed",
    ),
    Mutant(
        "the exact search takes a gather for an all_to_all",
        GRAPH,
        "TypeGraph._gathers",
        "tile * (prod([d.size for d in devices]) - 1)",
        "tile // prod([d.size for d in devices])",
    ),
    Mutant(
        "neighbours of an axis join across a gap in the dimension",
        PRIMES,
        "merge_state",
        "same and d.pre * size == device.pre and i.pre * size == index.pre",
        "same and d.pre * size == device.pre",
    ),
    Mutant(
        "index digits that do not overlap are compatible, nested or not",
        PRIMES,
        "compatible",
        "a.dim != b.dim or b.pre % a.end == 0 or a.pre % b.end == 0",
        "a.dim != b.dim or b.pre >= a.end or a.pre >= b.end",
    ),
    Mutant(
        "an axis is cut with its smaller primes first, and in no other order",
        PRIMES,
        "_orders",
        "sorted(set(primes(size)))",
        "primes(size)[:1]",
    ),
    Mutant(
        "replicas on another mesh do not gather what each of them received",
        ACROSS,
        "_beside_exchange",
        "[AllGather(gathered), *closing]",
        "closing",
    ),
    Mutant(
        "what becomes partial on another mesh is gathered, too",
        ACROSS,
        "_outside",
        "digit.axis != part[0].axis or low >= high",
        "digit.axis == part[0].axis or low >= high",
    ),
)
