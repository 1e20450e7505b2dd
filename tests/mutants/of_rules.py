"""Bugs in the typing rules, in tables and routing, and in what is made of a plan."""

from tests.mutants.mutant import Mutant

COLLECTIVES = "redistrib/synth/plan/collectives.py"
TABLES = "redistrib/synth/plan/tables.py"
ROUTING = "redistrib/synth/plan/routing.py"
COST = "redistrib/synth/plan/price.py"
PROFILE = "redistrib/synth/plan/profile.py"
BOUND = "redistrib/synth/plan/bounds.py"
PLAN = "redistrib/synth/plan/data.py"
PLAN_JSON = "redistrib/synth/plan/json.py"
ROLES = "redistrib/synth/plan/roles.py"
TRANSPOSE = "redistrib/synth/plan/transpose.py"

MUTANTS = (
    Mutant(
        "an owner takes an index digit that another one owns",
        ROLES,
        "Roles.own",
        "self.check_local(index)",
        "",
    ),
    Mutant(
        "an owner need not be free before",
        ROLES,
        "Roles.own",
        "self.check_free(device)",
        "",
    ),
    Mutant(
        "an owner need not have the size of what it owns",
        ROLES,
        "Roles.own",
        "device.size != index.size",
        "device.size > index.size",
    ),
    Mutant(
        "what is sliced need not divide the dimension",
        ROLES,
        "Roles.check_local",
        "not 0 <= index.dim < len(self.type.shape) or self.type.shape[index.dim] % index.end",
        "not 0 <= index.dim < len(self.type.shape)",
    ),
    Mutant(
        "a gather names any index digit, owned by the device or not",
        ROLES,
        "Roles.release_from",
        "owned != index",
        "False",
    ),
    Mutant(
        "an all_to_all may move to what an earlier move of it leaves",
        COLLECTIVES,
        "AllToAll.apply",
        "layout.check_local(move.target)",
        "pass",
    ),
    Mutant(
        "an all_to_all moves from the target to the source",
        COLLECTIVES,
        "AllToAll.apply",
        "layout.own(move.device, move.target)",
        "layout.own(move.device, move.source)",
    ),
    Mutant(
        "a permute leaves owners where they were",
        COLLECTIVES,
        "CollectivePermute.apply",
        "(new, layout.release(old))",
        "(old, layout.release(old))",
    ),
    Mutant(
        "a permute leaves partial digits where they were",
        COLLECTIVES,
        "CollectivePermute.apply",
        """
layout.reduce(old)
partial.append(new)
""",
        """
layout.reduce(old)
partial.append(old)
""",
    ),
    Mutant(
        "a permute may join digits of two sizes",
        COLLECTIVES,
        "CollectivePermute.apply",
        "old.size != new.size",
        "old.axis == new.axis and old.size != new.size",
    ),
    Mutant(
        "two routes of a permute may lead to one digit",
        COLLECTIVES,
        "CollectivePermute.apply",
        "olds != {new for _, new in self.routes}",
        "not olds >= {new for _, new in self.routes}",
    ),
    Mutant(
        "reducing a part of a partial digit reduces all of it",
        ROLES,
        "Roles.reduce",
        "[d for d, _ in left]",
        "[]",
    ),
    Mutant(
        "a sum may go on as a maximum",
        ROLES,
        "Roles.typed_partial",
        "t.partial and t.reduction != reduction",
        "not t.partial and t.reduction == reduction",
    ),
    Mutant(
        "an axis that owns something may become partial",
        COLLECTIVES,
        "ReplicatedToPartial.apply",
        "layout.check_free(device)",
        "",
    ),
    Mutant(
        "an exchange forgets the partial axes",
        COLLECTIVES,
        "Exchange.apply",
        "t.replace(mesh=self.mesh, placements=self.placements)",
        "t.replace(mesh=self.mesh, placements=self.placements, partial=())",
    ),
    Mutant(
        "a partial array goes to another mesh",
        COLLECTIVES,
        "Exchange.apply",
        "self.mesh is not None and t.partial",
        "self.mesh == t.mesh and t.partial",
    ),
    Mutant(
        "a table permute may bring a device another tile than it wants",
        TABLES,
        "PermuteTable.apply",
        "not np.array_equal(offsets_after, offsets_before[list(self.sources)])",
        "sorted(offsets_after.tolist()) != sorted(offsets_before.tolist())",
    ),
    Mutant(
        "the inverse of a table is the table",
        TABLES,
        "PermuteTable.inverse",
        "tuple(self.sources.index(a) for a in range(len(self.sources)))",
        "self.sources",
    ),
    Mutant(
        "a table moves tiles that are where they should be",
        TABLES,
        "permute_table",
        """
if a in holders.get(key, ()):
    sources[a] = a
    holders[key].remove(a)
""",
        """
if sources[a] >= 0:
    sources[a] = a
    holders[key].remove(a)
""",
    ),
    Mutant(
        "runs of owned digits join across a gap",
        TABLES,
        "owned_runs",
        "runs[-1][2] == index.pre",
        "runs[-1][2] <= index.pre",
    ),
    Mutant(
        "offsets of tiles count a digit from the minor end",
        TABLES,
        "tile_offsets",
        "axis.end // device.end",
        "device.pre // axis.pre",
    ),
    Mutant(
        "a receiver takes its coordinate for the number of what it owns",
        TABLES,
        "_route",
        "held[own] == value",
        "own == value",
    ),
    Mutant(
        "the first replica serves all",
        TABLES,
        "_route",
        "min(replicas[value], key=lambda b: (served[b], b))",
        "min(replicas[value])",
    ),
    Mutant(
        "the digits of sender and receiver are swapped in a choice of replicas",
        ROUTING,
        "_route_digits",
        "pairs.append((first, last))",
        "pairs.append((last, first))",
    ),
    Mutant(
        "the lower bound forgets what is local on both sides",
        ROUTING,
        "least_overlap",
        "outside * prod(min_overlap(component) for component in components)",
        "prod(min_overlap(component) for component in components)",
    ),
    Mutant(
        "the worst sender sends to itself as well",
        ROUTING,
        "exchange_traffic",
        "(a - b for a, b in loads)",
        "(a for a, _ in loads)",
    ),
    Mutant(
        "an all_gather receives the own tile too",
        COLLECTIVES,
        "AllGather.tile_traffic",
        "tile * (k - 1), tile * k",
        "tile * k, tile * k",
    ),
    Mutant(
        "an all_to_all receives a whole tile",
        COLLECTIVES,
        "AllToAll.tile_traffic",
        "tile // k * (k - 1), tile",
        "tile, tile",
    ),
    Mutant(
        "an all_reduce forgets that chunks are rounded up",
        COLLECTIVES,
        "AllReduce.tile_traffic",
        "tile + (k - 2) * ceil(tile / k)",
        "2 * (k - 1) * (tile // k)",
    ),
    Mutant(
        "a collective over several axes takes the fastest of them",
        PROFILE,
        "Profile.seconds",
        "min(link.bandwidth for link in used)",
        "max(link.bandwidth for link in used)",
    ),
    Mutant(
        "an all_reduce pays one latency",
        COLLECTIVES,
        "AllReduce",
        "latencies: ClassVar[int] = 2",
        "latencies: ClassVar[int] = 1",
    ),
    Mutant(
        "the planner does not see that a gather makes the tile larger",
        COLLECTIVES,
        "AllGather.tile_traffic",
        "tile * (k - 1), tile * k",
        "tile * (k - 1), tile",
    ),
    Mutant(
        "the bound of a reduction counts one addend too many",
        BOUND,
        "_by_mean",
        "addends + copies - 1 - _saved(src, dst) * held",
        "addends + copies - _saved(src, dst) * held",
    ),
    Mutant(
        "the bound of a partial target wants all of it on every device of a row",
        BOUND,
        "_by_worst_row",
        "Fraction(lower_bound(held, dst.replace(partial=())), addends)",
        "Fraction(lower_bound(held, dst.replace(partial=())))",
    ),
    Mutant(
        "the bound forgets that what becomes partial may keep its part",
        BOUND,
        "_by_worst_row",
        "all(apart(device, digit) for digit in dst.partial)",
        "device.size > 1",
    ),
    Mutant(
        "a maximum may be bounded like a sum that stays",
        BOUND,
        "_kept",
        "src.partial and dst.partial and src.reduction != dst.reduction",
        "src.partial != dst.partial and src.reduction != dst.reduction",
    ),
    Mutant(
        "the bound lets no addend stay where copies are made of others",
        BOUND,
        "_saved",
        "not dst.partial or _releases(src, dst)",
        "not dst.partial or src.partial",
    ),
    Mutant(
        "addends stay although their devices hold copies of others",
        BOUND,
        "_saved",
        "not dst.partial or _releases(src, dst)",
        "not dst.partial",
    ),
    Mutant(
        "of digits that are not nested no addend stays",
        BOUND,
        "_kept",
        "min(_count(before), _count(after))",
        "1",
    ),
    Mutant(
        "the source counts twice in the memory of the first step",
        PLAN,
        "Plan.live_bytes_per_step",
        "before.tile_bytes if at else 0",
        "before.tile_bytes",
    ),
    Mutant(
        "the steps of a plan may end anywhere",
        PLAN,
        "make_plan",
        "types[-1] not in (target, dst)",
        "types[-1].shape != dst.shape",
    ),
    Mutant(
        "slices count as collectives",
        PLAN,
        "Plan.num_collectives",
        "sum(step.communicates for step in self.steps)",
        "len(self.steps)",
    ),
    Mutant(
        "source and target of a move are swapped in JSON",
        COLLECTIVES,
        "_write_moves",
        "(move.device, move.source, move.target)",
        "(move.device, move.target, move.source)",
    ),
    Mutant(
        "a plan forgets its memory limit in JSON",
        PLAN_JSON,
        "plan_from_json",
        'make_plan(src, dst, read_text(data["strategy"], "strategy"), steps, profile, limit)',
        'make_plan(src, dst, read_text(data["strategy"], "strategy"), steps, profile)',
    ),
    Mutant(
        "a plan from JSON has the seconds of the default profile",
        PLAN_JSON,
        "plan_from_json",
        'DEFAULT_PROFILE if first else Profile.from_data(data["profile"])',
        "DEFAULT_PROFILE",
    ),
    Mutant(
        "every conversion to partial is a sum in JSON",
        COLLECTIVES,
        "REDUCTION",
        'Field("reduction", "reduction", str, read_text)',
        'Field("reduction", "reduction", str, lambda value, what: "sum")',
    ),
    Mutant(
        "the transpose forgets the memory limit",
        TRANSPOSE,
        "transpose",
        "make_plan(*ends, plan.strategy, reversed(steps), plan.profile, plan.memory_limit)",
        "make_plan(*ends, plan.strategy, reversed(steps), plan.profile)",
    ),
    Mutant(
        "the transpose of a gather is a gather",
        COLLECTIVES,
        "AllGather.transposed",
        "ReduceScatter(self.placements)",
        "AllGather(self.placements)",
    ),
    Mutant(
        "the transpose of an all_to_all is not inverted",
        COLLECTIVES,
        "AllToAll.transposed",
        "Move(move.device, move.target, move.source)",
        "Move(move.device, move.source, move.target)",
    ),
    Mutant(
        "the transpose of a permute is not inverted",
        COLLECTIVES,
        "CollectivePermute.transposed",
        "((new, old) for old, new in self.routes)",
        "((old, new) for old, new in self.routes)",
    ),
    Mutant(
        "the transposed steps run forwards",
        TRANSPOSE,
        "transpose",
        "reversed(steps)",
        "steps",
    ),
)
