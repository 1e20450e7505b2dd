"""Bugs in the oracle: exchanges of batches, closure, stops."""

from tests.mutants.mutant import Mutant

ORACLE = "redistrib/synth/oracle/oracle.py"
BATCHES = "redistrib/synth/oracle/batches.py"
EXCHANGES = "redistrib/synth/oracle/exchanges.py"
CLOSURE = "redistrib/synth/oracle/closure.py"
STOPS = "redistrib/synth/oracle/stops.py"

MUTANTS = (
    Mutant(
        "an exchange in a batch receives what its best device does",
        EXCHANGES,
        "held[pairs] = np.multiply.reduce([overlap for overlap, _ in both]).min(axis=1)",
        "held[pairs] = np.multiply.reduce([overlap for overlap, _ in both]).max(axis=1)",
    ),
    Mutant(
        "an exchange in a batch has the fewest peers of all devices",
        EXCHANGES,
        "peers[pairs] = np.multiply.reduce([met for _, met in both]).max(axis=1)",
        "peers[pairs] = np.multiply.reduce([met for _, met in both]).min(axis=1)",
    ),
    Mutant(
        "what a device holds in a batch is where its target tile is",
        EXCHANGES,
        "overlap[n] = common[each, own[n], own]",
        "overlap[n] = common[each, own, own]",
    ),
    Mutant(
        "exchanges of a batch over a slow link cost what those over a fast one do",
        EXCHANGES,
        "code = code * 2 + (of_type[src] != of_type[dst])",
        "code = code * 2",
    ),
    Mutant(
        "a pair that does not fit the memory limit is free in a batch",
        BATCHES,
        "seconds[: len(each)][[costs is None for costs in each]] = inf",
        "seconds[: len(each)][[costs is None for costs in each]] = 0.0",
    ),
    Mutant(
        "the few misaligned pairs of a matrix are not searched",
        BATCHES,
        'strategy == "auto" and len(alone) > most_searched',
        'strategy == "auto" and most_searched < inf',
    ),
    Mutant(
        "a detour may pass through any tile",
        CLOSURE,
        "            low = int(first[k])\n",
        "            low = 0\n",
    ),
    Mutant(
        "the plan of an entry searches where the price is of an exchange",
        ORACLE,
        '"direct" if self._exchanged[leg] else self._strategy',
        "self._strategy",
    ),
    Mutant(
        "misaligned pairs never have a cheaper way with one latency",
        ORACLE,
        "latencies = 2 if best.aligned and best.cost.num_collectives > 1 else 1",
        "latencies = 2 if best.cost.num_collectives > 1 else 1",
    ),
    Mutant(
        "a misaligned pair may stop at tiles above the limit",
        ORACLE,
        "        to[~fits] = onwards[~fits] = inf\n",
        "",
    ),
    Mutant(
        "an aligned pair may stop at tiles above the limit",
        STOPS,
        "if stop.tile_bytes > most or (",
        "if (",
    ),
    Mutant(
        "a group keeps all that its devices hold of a digit that another axis takes over",
        STOPS,
        "kept = kept * a / b if after is None else 0.0",
        "kept = kept * a / b if after is None else 1.0",
    ),
)
