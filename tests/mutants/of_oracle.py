"""Bugs in the oracle: exchanges of batches, closure, stops."""

from tests.mutants.mutant import Mutant

ORACLE = "redistrib/synth/oracle/oracle.py"
MATRIX = "redistrib/synth/oracle/matrix.py"
BATCHES = "redistrib/synth/planner/detours/batches.py"
EXCHANGES = "redistrib/synth/planner/detours/exchanges.py"
CLOSURE = "redistrib/synth/planner/detours/closure.py"
THROUGH = "redistrib/synth/planner/detours/through.py"
STOPS = "redistrib/synth/planner/detours/stops.py"
PROFILE = "redistrib/synth/plan/profile.py"
LINKS = "redistrib/synth/plan/links.py"
BY_LEVEL = "redistrib/synth/plan/by_level.py"
NUMBERED = "redistrib/synth/planner/detours/numbered.py"
RELABEL = "redistrib/synth/planner/relabel.py"
SIGNATURES = "redistrib/synth/planner/detours/signatures.py"
PRICE_KEYS = "redistrib/synth/planner/detours/price_keys.py"
CUT_AXES = "redistrib/synth/planner/cut_axes.py"

MUTANTS = (
    Mutant(
        "an exchange with partial sums forgets what takes no part",
        RELABEL,
        "relabelled",
        "(*new.placements, *fixed)",
        "new.placements",
    ),
    Mutant(
        "a batch gives sums of all reductions one price",
        SIGNATURES,
        "_key_of_sums",
        "codes.reduction[src] * (int(codes.reduction.max()) + 1) + codes.reduction[dst]",
        "codes.reduction[src] * 0",
    ),
    Mutant(
        "arrays of two sizes ask the same of partial sums",
        PRICE_KEYS,
        "_of_sums",
        "yield ends, size[n], powers, *sorted(looks)",
        "yield ends, powers, *sorted(looks)",
    ),
    Mutant(
        "tiles of two sizes ask the same",
        PRICE_KEYS,
        "_of_moves",
        "codes.tiles[src[n]]",
        "0",
    ),
    Mutant(
        "runs with room for some digits ask what runs with room for none do",
        PRICE_KEYS,
        "rooms_for",
        "found += [room] if room > 1 else []",
        "found += []",
    ),
    Mutant(
        "a batch does not look at what is kept of an array with partial sums",
        SIGNATURES,
        "_key_of_sums",
        "(*products, *chains.T, *np.sort(places, axis=0))",
        "(*products, *chains.T)",
    ),
    Mutant(
        "what goes onto another mesh crosses the link of the first level, wherever it goes",
        BY_LEVEL,
        "link_between",
        "first // level.devices == last // level.devices",
        "first // level.devices <= last // level.devices",
    ),
    Mutant(
        "an axis over several levels has the link of the outermost",
        BY_LEVEL,
        "links_by_level",
        "start < end and end % start == 0",
        "start == 1 and end > 1",
    ),
    Mutant(
        "a digit of a ring reaches no further where it starts further",
        LINKS,
        "Link.below",
        "place.reach // positions",
        "place.reach",
    ),
    Mutant(
        "digits of two rings are one ring's",
        LINKS,
        "_in_level",
        "rings.setdefault(place.ring, [])",
        "rings.setdefault(0, [])",
    ),
    Mutant(
        "what goes around a ring also goes around a line",
        LINKS,
        "_in_level",
        "along[0][0].closed and reach == along[0][0].side",
        "True",
    ),
    Mutant(
        "a batch gives digits of one ring one price, wherever they start",
        NUMBERED,
        "NumberedTypes._number_links",
        "profile.link_of(axes[str(axis)]).below(cut)",
        "profile.link_of(axes[str(axis)])",
    ),
    Mutant(
        "nothing is faster than one ring of a torus",
        PROFILE,
        "best_of",
        "len(rings[link.place.level]) if link.place else 1",
        "1",
    ),
    Mutant(
        "axes are cut where digits that match no longer do",
        CUT_AXES,
        "on_cut_axes",
        "comparable(end, of_types[axis.axis])",
        "comparable(end, [1])",
    ),
    Mutant(
        "a table of a finer mesh names the parts of an axis",
        RELABEL,
        "_relabel.devices",
        "tuple(coalesce(row[0] for d in given for row in digits.rows(d)))",
        "tuple(row[0] for d in given for row in digits.rows(d))",
    ),
    Mutant(
        "an exchange in a batch receives what its best device does",
        EXCHANGES,
        "Exchanges.counts",
        "np.multiply.reduce([overlap for overlap, _ in both]).min",
        "np.multiply.reduce([overlap for overlap, _ in both]).max",
    ),
    Mutant(
        "an exchange in a batch has the fewest peers of all devices",
        EXCHANGES,
        "Exchanges.counts",
        "np.multiply.reduce([met for _, met in both]).max",
        "np.multiply.reduce([met for _, met in both]).min",
    ),
    Mutant(
        "in a batch every device holds some of what it needs",
        EXCHANGES,
        "_tables",
        "np.where(cells >= 0, met.sizes[cells], 0)",
        "met.sizes[cells]",
    ),
    Mutant(
        "exchanges of a batch over a slow link cost what those over a fast one do",
        EXCHANGES,
        "_links",
        "code * 2 + changed",
        "code * 2",
    ),
    Mutant(
        "a pair that does not fit the memory limit is free in a batch",
        BATCHES,
        "_added",
        "seconds[: len(each)][[costs is None for costs in each]] = inf",
        "seconds[: len(each)][[costs is None for costs in each]] = 0.0",
    ),
    Mutant(
        "the few misaligned pairs of a matrix are not searched",
        BATCHES,
        "price_pairs",
        "len(alone) > most_searched",
        "most_searched < inf",
    ),
    Mutant(
        "a detour may pass through any tile",
        CLOSURE,
        "close.relax",
        "int(first[k])",
        "0",
    ),
    Mutant(
        "the plan of an entry searches where the price is of an exchange",
        MATRIX,
        "CostMatrix.plan",
        '"direct" if self._exchanged[leg] else self._strategy',
        "self._strategy",
    ),
    Mutant(
        "a matrix of one pair looks at less than a single question",
        ORACLE,
        "_asks_singly",
        "len(types) <= MAX_SINGLE",
        "len(types) < 1",
    ),
    Mutant(
        "the plan of an entry of few pairs makes no stops",
        ORACLE,
        "Oracle.plan_through",
        "choose if singly else choose_without_stops",
        "choose_without_stops",
    ),
    Mutant(
        "misaligned pairs never have a cheaper way with one latency",
        THROUGH,
        "stops_between",
        "problem.refinement.aligned and collectives > 1",
        "collectives > 1",
    ),
    Mutant(
        "a misaligned pair may stop at tiles above the limit",
        THROUGH,
        "_through_matrix",
        "to[~fits] = onwards[~fits] = inf",
        "",
    ),
    Mutant(
        "an aligned pair may stop at tiles above the limit",
        STOPS,
        "find_stop",
        "stop.tile_bytes > most or ((to := price(src, stop)) + rest) * NEAR * GAIN >= best",
        "((to := price(src, stop)) + rest) * NEAR * GAIN >= best",
    ),
    Mutant(
        "a group keeps all that its devices hold of a digit that another axis takes over",
        STOPS,
        "_crossing",
        "0.0",
        "1.0",
    ),
)
