"""Bugs in the jax backend: what is lost, where results land, what other programs are taken for."""

from tests.mutants.mutant import Mutant

BATCHES = "redistrib/backends/jax/batches.py"
TREES = "redistrib/backends/jax/trees.py"
COPIES = "redistrib/backends/jax/host_copies.py"
UNION = "redistrib/backends/jax/union_program.py"
ARRAYS = "redistrib/backends/jax/arrays.py"
DEFERRED = "redistrib/backends/jax/deferred.py"
INTERNALS = "redistrib/backends/jax/internals.py"
MOVES = "redistrib/backends/jax/moves.py"
OPTIMIZE = "redistrib/backends/jax/optimize.py"
PARTITIONED = "redistrib/backends/jax/partitioned.py"
RESHARD = "redistrib/backends/jax/reshard.py"
LOWERING = "redistrib/backends/jax/lowering.py"
PLANNING = "redistrib/backends/jax/planning.py"
TOGETHER = "redistrib/backends/jax/together.py"

MUTANTS = (
    Mutant(
        "programs that XLA asks for have no elements of 64 bits",
        INTERNALS,
        "program_bytes",
        "jax.enable_x64(wide)",
        "jax.enable_x64(False)",
    ),
    Mutant(
        "an array that is twice in a donated tree is given up at its first use",
        RESHARD,
        "sharing_buffers",
        "uses[b] > 1",
        "uses[b] > 2",
    ),
    Mutant(
        "a donated array is deleted under a result that is a view of it",
        RESHARD,
        "give_up",
        "not kept & _buffers(x)",
        "not set() & _buffers(x)",
    ),
    Mutant(
        "arrays that a function closes over are planned as if nothing were traced",
        RESHARD,
        "_program",
        "return _traced_program(x, x, target, options, donate)",
        "return arrays.program_of(x, target, options, donate)",
    ),
    Mutant(
        "another kind of memory is taken for the device's inside jit",
        RESHARD,
        "_check_memory",
        "target.memory_kind not in kinds",
        "target.memory_kind in ()",
    ),
    Mutant(
        "a result on another mesh is no longer weakly typed",
        ARRAYS,
        "_on_same_buffers",
        """
if weak_type:
    ...
""",
        """
if not weak_type:
    ...
""",
    ),
    Mutant(
        "a cotangent stays on the devices of the target",
        DEFERRED,
        "_transpose",
        "source is None",
        "source is None or source",
    ),
    Mutant(
        "what has crossed overwrites the tiles of devices that receive nothing in the round",
        UNION,
        "Side.write",
        "receives is not True",
        "receives is True",
    ),
    Mutant(
        "an array of a source and the target of its name are taken for one another",
        COPIES,
        "_source",
        "transfer.phase > 0",
        "transfer.phase >= 0",
    ),
    Mutant(
        "a batch is planned as if its program allocated nothing beside the targets",
        BATCHES,
        "Batches._fitted",
        "_Fitted(run, number, targets, alive + targets + scratch)",
        "_Fitted(run, number, targets, alive + targets)",
    ),
    Mutant(
        "tied weights move once for each of their places",
        TREES,
        "reshard_tree",
        "first.setdefault((id(x), target), name)",
        "first.setdefault((name, target), name)",
    ),
    Mutant(
        "a program does not say for which devices it was planned",
        MOVES,
        "move_params",
        "_on_devices(move.mesh) if concrete else None",
        "None if concrete else None",
    ),
    Mutant(
        "tuples with names are rebuilt as tuples",
        OPTIMIZE,
        "_Rewriting.with_jaxprs",
        "type(value) in (tuple, list)",
        "isinstance(value, (tuple, list))",
    ),
    Mutant(
        "a loop is entered in the layout that its argument has",
        OPTIMIZE,
        "_Rewriting.loop",
        "constraint is not None",
        "constraint is False",
    ),
    Mutant(
        "programs with other options have one name in the compilation cache",
        PARTITIONED,
        "_lower",
        "asdict(options)",
        "asdict(Options(fallback=options.fallback))",
    ),
    Mutant(
        "errors of planning inside jit are XLA's",
        PARTITIONED,
        "_plannable",
        "_raised.append(error)",
        "_raised.clear()",
    ),
    Mutant(
        "values that need each other are freed together",
        OPTIMIZE,
        "_freed_together",
        "depth += 1",
        "depth += 0",
    ),
    Mutant(
        "what reads from memory comes before what writes there",
        OPTIMIZE,
        "_freed_together",
        "max(last, depth)",
        "depth",
    ),
    Mutant(
        "small floats are stacked as floats",
        LOWERING,
        "stacked_program",
        "as_bits(tile, choose)",
        "tile",
    ),
    Mutant(
        "arrays that are stacked have the limit of one",
        PLANNING,
        "Planned.of_equal",
        "options.memory_limit is not None",
        "options.memory_limit == 0",
    ),
    Mutant(
        "the cotangent of an array with Explicit axes goes where it wants",
        DEFERRED,
        "_transpose",
        "not typed",
        "True",
    ),
    Mutant(
        "small floats become integers inside of a program that has no room for it",
        TOGETHER,
        "program_of",
        "moved_as(dtype, choices(platform))",
        "dtype",
    ),
)
