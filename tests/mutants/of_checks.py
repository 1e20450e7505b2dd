"""Bugs in what finds bugs: the checker, the certificates, the simulator and its delivery."""

from tests.mutants.mutant import Mutant

BOUND = "redistrib/checker/lower_bound.py"
CHECKER = "redistrib/checker/checker.py"
READING = "redistrib/checker/reading.py"
SENDERS = "redistrib/checker/senders.py"
SHARED = "redistrib/checker/shared.py"
PARTS = "redistrib/checker/parts.py"
CHECKED_PRICE = "redistrib/checker/price.py"
CHECKED_RINGS = "redistrib/checker/rings.py"
CERTIFICATE = "redistrib/checker/certificate/__init__.py"
SOLVER = "redistrib/checker/certificate/solver.py"
STEPS = "redistrib/checker/certificate/steps.py"
CERTIFIED_TABLES = "redistrib/checker/certificate/tables.py"
PIECES = "redistrib/synth/plan/pieces.py"
SIMULATOR = "redistrib/backends/simulator/__init__.py"
REDUCTION = "redistrib/types/reduction.py"
TABLES = "redistrib/synth/plan/tables.py"
TILE = "redistrib/types/tile.py"
TILES = "redistrib/backends/simulator/tiles.py"
TILE_PROGRAM = "redistrib/synth/plan/tile_program.py"
TRAFFIC = "redistrib/backends/simulator/traffic.py"

MUTANTS = (
    Mutant(
        "the checker has a gather receive the own tile too",
        CHECKER,
        "_CHANGES",
        "tile * (k - 1)",
        "tile * k",
    ),
    Mutant(
        "the checker thinks that a reduce_scatter takes free digits",
        CHECKER,
        "_CHANGES",
        '("partial", "owner", lambda tile, k: tile // k * (k - 1))',
        '("free", "owner", lambda tile, k: tile // k * (k - 1))',
    ),
    Mutant(
        "the checker does not look where the steps end",
        CHECKER,
        "_check",
        "current in ends",
        "current.shape == ends[0].shape",
    ),
    Mutant(
        "the checker lets any tile pass",
        CHECKER,
        "_check",
        "max(tiles) <= limit",
        "min(tiles) <= limit",
    ),
    Mutant(
        "the checker believes the totals of a plan",
        CHECKER,
        "_check",
        '_same(figures | ({"seconds": seconds} if links else {}), data)',
        "_same({}, data)",
    ),
    Mutant(
        "the checker does not ask whether an index digit is local",
        CHECKER,
        "_apply",
        "fits and local",
        "fits or local",
    ),
    Mutant(
        "the checker takes any sources of a table for a permutation",
        CHECKER,
        "_permute_by_table",
        "sorted(sources) == [*range(len(sources))]",
        "{*sources} <= {*range(len(sources))}",
    ),
    Mutant(
        "the checker does not see that a table brings the wrong tile",
        CHECKER,
        "_permute_by_table",
        "not edges and np.array_equal(starts[0][:, sources], starts[1])",
        "not edges",
    ),
    Mutant(
        "the checker lets a device ask others for what it holds",
        SENDERS,
        "loads",
        'require(np.array_equal(kept, sender == own), "a device keeps what it already holds")',
        "pass",
    ),
    Mutant(
        "the checker lets a device send what it lacks",
        SENDERS,
        "loads",
        'require(holds, "who sends an element holds it")',
        "pass",
    ),
    Mutant(
        "the checker lets some replicas serve more than others",
        SENDERS,
        "loads",
        'require(len(senders) == len(part.spans), "all replicas serve the same amount")',
        "pass",
    ),
    Mutant(
        "the checker lets a digit that owns something name a replica",
        CHECKER,
        "_require_routed",
        "_require_free(a, [owner for owner, _ in t.placements], t)",
        "",
    ),
    Mutant(
        "the checker counts one addend too many in the bound",
        BOUND,
        "lower_bound",
        "addends + copies - 1 - saved * prod(part.held() for part in parts_of(src, dst, effort))",
        "addends + copies - saved * prod(part.held() for part in parts_of(src, dst, effort))",
    ),
    Mutant(
        "the checker lets an owner that becomes partial hold its part for the row",
        BOUND,
        "lower_bound",
        "all(apart(d, digit) for digit in dst.partial)",
        "any(apart(d, digit) for digit in dst.partial)",
    ),
    Mutant(
        "the checker keeps addends whose digit becomes an owner",
        BOUND,
        "_what_stays",
        "kept and made",
        "kept",
    ),
    Mutant(
        "the checker counts what a device sends to itself",
        CHECKER,
        "_exchange",
        "(a - b for a, b in loads)",
        "(a for a, _ in loads)",
    ),
    Mutant(
        "the checker lets two digits of a sender be one of the receiver on another mesh",
        CHECKER,
        "_require_routed",
        "_roles(after, [b for _, b in replicas])",
        "pass",
    ),
    Mutant(
        "the checker forgets the copies of a tile that nobody asks",
        "redistrib/checker/crossing.py",
        "_served",
        "with_digits(positions, named, positions * 0, axes) == 0",
        "positions >= 0",
    ),
    Mutant(
        "the checker lets a table have entries that nobody asks for",
        SENDERS,
        "_routed",
        'require(len({*place.tolist()}) == len(known), "a table has no entry that nobody asks for")',
        "pass",
    ),
    Mutant(
        "the checker lets a table send from outside its axes",
        SENDERS,
        "_check_table",
        "table.rows == rows and not (value >= values).any() and not (sender >= senders).any()",
        "table.rows == rows and not (value >= values).any()",
    ),
    Mutant(
        "the checker forgets senders that send less and keep less",
        SENDERS,
        "worst",
        "least is None or kept < least",
        "least is None",
    ),
    Mutant(
        "the checker reads keys that it does not know",
        READING,
        "_object",
        """raise _error(f"a key of {subject}", f"one of {', '.join(readers)}", unknown[0])""",
        "pass",
    ),
    Mutant(
        "the checker takes true for a count",
        READING,
        "_integer",
        "type(value) is not int or value < 0",
        "not isinstance(value, int) or value < 0",
    ),
    Mutant(
        "the checker takes 2.0 for a count",
        READING,
        "_integer",
        "type(value) is not int or value < 0",
        "type(value) not in (int, float) or value < 0",
    ),
    Mutant(
        "the checker takes a memory limit below the tiles for none",
        CHECKER,
        "_check",
        'data.get("memory_limit", max(src.tile_bytes, dst.tile_bytes))',
        'max(src.tile_bytes, dst.tile_bytes, data.get("memory_limit", 0))',
    ),
    Mutant(
        "the checker lets an exchange say onto within one mesh",
        CHECKER,
        "_exchange",
        '("onto" in step) == across and step.get("onto", "dst_mesh") == "dst_mesh"',
        'step.get("onto", "dst_mesh") == "dst_mesh"',
    ),
    Mutant(
        "the checker lets direct receive more than the bound",
        CHECKER,
        "_check",
        "at_bound or not direct",
        "True",
    ),
    Mutant(
        "the checker counts whole periods of a block and not the rest",
        SHARED,
        "_Split.pairs",
        "rest + block // period * until[steps]",
        "rest * 0 + block // period * until[steps]",
    ),
    Mutant(
        "the checker cuts where the digits of one side go on",
        PARTS,
        "_split",
        "images[cut] <= cuts",
        "True",
    ),
    Mutant(
        "the checker prices an exchange as one round",
        CHECKED_PRICE,
        "Links.seconds",
        'self.rounds or name != "exchange"',
        'name != "exchange"',
    ),
    Mutant(
        "the checker prices every axis alike",
        CHECKED_PRICE,
        "Links.seconds",
        "[link for digit in crossed for link in self._crossed(digit)]",
        "[self.default]",
    ),
    Mutant(
        "the checker prices what goes onto another mesh by the links of the source alone",
        CHECKED_PRICE,
        "Links.seconds",
        "onto is not None",
        "False",
    ),
    Mutant(
        "the checker prices what goes onto another mesh by the one link of the source's mesh",
        CHECKED_PRICE,
        "Links.seconds",
        "self._to(onto)",
        "self.default",
    ),
    Mutant(
        "the checker lets a line go around",
        CHECKED_RINGS,
        "speed_on",
        "reach == around >= level.wraps",
        "True",
    ),
    Mutant(
        "the checker does not look into levels",
        CHECKED_PRICE,
        "Links.of",
        "start < end and end % start == 0",
        "start < 0",
    ),
    Mutant(
        "the checker lets a sum go on as a maximum",
        CHECKER,
        "_apply",
        "t.reduction == reduction",
        "reduction is not None",
    ),
    Mutant(
        "the checker lets a step name one digit twice",
        CHECKER,
        "_roles",
        "fits and all(a.axis != b.axis or b.pre % a.end == 0 for a, b in pairwise(sorted(named)))",
        "fits",
    ),
    Mutant(
        "z3 is asked whether the claim can hold, not whether it can fail",
        SOLVER,
        "decide",
        "z3.Not(claim)",
        "claim",
    ),
    Mutant(
        "numbers are written with their digits added up",
        SOLVER,
        "horner",
        "total * size + value",
        "total + value * size",
    ),
    Mutant(
        "the certificate does not compare elements",
        STEPS,
        "_Delivery.elements",
        "sent == wanted",
        "sent >= 0",
    ),
    Mutant(
        "the certificate does not compare addends",
        STEPS,
        "_Delivery.addends",
        "[same_left == z3.And([self.sender[d] == other[d] for d in sorted(kept)])]",
        "[]",
    ),
    Mutant(
        "the certificate has a gather take all parts from the receiver",
        STEPS,
        "_Delivery._change",
        """
match self.view.kind:
    case "all_gather":
        self.sender[device] = self._leave(rest[0])
""",
        """
match self.view.kind:
    case "all_gather":
        self._leave(rest[0])
""",
    ),
    Mutant(
        "the certificate has every device slice out part 0",
        STEPS,
        "_Delivery._change",
        """
match self.view.kind:
    case "dynamic_slice":
        self._enter(partners[0], self.receiver[device])
""",
        """
match self.view.kind:
    case "dynamic_slice":
        self._enter(partners[0], 0)
""",
    ),
    Mutant(
        "the certificate does not look where the steps end",
        CERTIFICATE,
        "certify",
        "types[-1] == dst",
        "types[-1].shape == dst.shape",
    ),
    Mutant(
        "the certificate passes a table with wrong tiles",
        CERTIFIED_TABLES,
        "Table._permute",
        "(held != wanted).any",
        "(held != wanted).all",
    ),
    Mutant(
        "the certificate lets a table ask who lacks the element",
        CERTIFIED_TABLES,
        "Table._exchange",
        "digit_values([owner], sender, self.axes) == digit",
        "digit >= 0",
    ),
    Mutant(
        "the certificate lets a step reduce by sum and by maximum",
        STEPS,
        "_Delivery.addends",
        "len(names) <= 1",
        "len(names) <= 2",
    ),
    Mutant(
        "a gather delivers the tile at place 0 only",
        TILES,
        "Views.gather",
        "tuple((digit.size, stride) for digit, stride in gathered)",
        "tuple((digit.size, 0) for digit, stride in gathered)",
    ),
    Mutant(
        "a permute runs backwards",
        TILES,
        "Views.send",
        "{new: before[old] for old, new in operation.step.routes if old.size > 1}",
        "{old: before[new] for old, new in operation.step.routes if old.size > 1}",
    ),
    Mutant(
        "a slice walks the tile and not the devices",
        TILES,
        "Views.pick",
        "stride + number",
        "number",
    ),
    Mutant(
        "a swap leaves the pieces where they are",
        TILES,
        "Views.swap",
        "_with_strides(devices, {digit: number for digit, _, number in pairs})",
        "devices",
    ),
    Mutant(
        "digits that change places are taken for neighbours",
        TILE_PROGRAM,
        "_transposed",
        "runs and prod(digits[runs[-1][-1] + 1 : axis]) == 1 and runs[-1][-1] < axis",
        "runs and prod(digits[runs[-1][-1] + 1 : axis]) == 1",
    ),
    Mutant(
        "every receiver asks the same replica",
        PIECES,
        "exchange_senders",
        "with_digits(senders, [theirs], digit_values([mine], receivers, there), axes)",
        "senders",
    ),
    Mutant(
        "a device on both meshes asks another one for what it holds",
        PIECES,
        "exchange_senders",
        "np.where(holds, home, senders)",
        "senders",
    ),
    Mutant(
        "the identities of maximum and minimum are swapped",
        REDUCTION,
        "identity",
        '"max"',
        '"min"',
    ),
    Mutant(
        "the identity of a sum is +0.0",
        REDUCTION,
        "identity",
        'complex(-0.0, -0.0) if dtype.kind == "c" else -0.0',
        "0",
    ),
    Mutant(
        "a table sends where it should receive",
        TABLES,
        "table_senders",
        "np.array(table.sources, np.intp)",
        "np.argsort(np.array(table.sources, np.intp))",
    ),
    Mutant(
        "a place in a tile counts what is owned, not what lies between",
        TILES,
        "_spots",
        "n // index.pre",
        "n // index.end",
    ),
    Mutant(
        "the parts of a tile that come from several owners are told apart by one owner only",
        PIECES,
        "_of_receiver",
        "owners * index.size + value",
        "value",
    ),
    Mutant(
        "a sender that lacks an element sends another one",
        PIECES,
        "_check_held",
        "held.all",
        "held.any",
    ),
    Mutant(
        "the sharded to partial conversion writes every part to place 0",
        TILES,
        "Views.place",
        "whole[np.arange(len(held)), groups.places()] = held",
        "whole[:, 0] = held",
    ),
    Mutant(
        "the measurement gives all chunks of an all_reduce one size",
        TRAFFIC,
        "_traffic",
        "tile // group + (c < tile % group)",
        "tile // group",
    ),
    Mutant(
        "the measurement counts the source twice",
        TRAFFIC,
        "measure",
        "held if live else 0",
        "held",
    ),
    Mutant(
        "replicas may disagree",
        SIMULATOR,
        "gather",
        "differ.any",
        "differ.all",
    ),
    Mutant(
        "every addend of a scattered array holds the data",
        SIMULATOR,
        "scatter",
        "tiles[numbers(type.mesh, type.partial) > 0]",
        "tiles[:0]",
    ),
    Mutant(
        "pieces are put back in the order that brought them to the front",
        TILE,
        "Split.tile",
        "sorted(range(len(self.order)), key=self.order.__getitem__)",
        "self.order",
    ),
    Mutant(
        "the devices of a group are in the order of their positions",
        TILE,
        "groups",
        "np.lexsort((numbers(mesh, digits), first))",
        'np.argsort(first, kind="stable")',
    ),
)
