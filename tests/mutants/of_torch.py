"""Bugs in the torch backend: what is sent, where it is put, in what order ranks begin."""

from tests.mutants.mutant import Mutant

AGREEMENT = "redistrib/backends/torch/agreement.py"
DROP_IN = "redistrib/backends/torch/drop_in.py"
GRADIENTS = "redistrib/backends/torch/gradients.py"
LAYOUTS = "redistrib/backends/torch/layouts.py"
MESSAGES = "redistrib/backends/torch/messages.py"
MODEL = "redistrib/backends/torch/model.py"
PRIMITIVES = "redistrib/backends/torch/primitives.py"
PROGRAMS = "redistrib/backends/torch/programs.py"
REDISTRIBUTE = "redistrib/backends/torch/redistribute.py"
REDUCTIONS = "redistrib/backends/torch/reductions.py"
REGIONS = "redistrib/backends/torch/regions.py"

MUTANTS = (
    Mutant(
        "unsigned numbers are compared by their first bit as a sign",
        REDUCTIONS,
        "_unsigned",
        "_OPERATIONS[reduction](a ^ flip, b ^ flip) ^ flip",
        "_OPERATIONS[reduction](a, b)",
    ),
    Mutant(
        "a rank that is not first keeps its addend",
        PRIMITIVES,
        "TilePrimitives.keep_first",
        "self._members_of(groups)[1] == 0",
        "self._members_of(groups)[1] >= 0",
    ),
    Mutant(
        "a result is a view of the tile that was given",
        PROGRAMS,
        "Program._walk",
        "given is not None and _share(tile, given)",
        "given is None",
    ),
    Mutant(
        "an average is a sum",
        REDISTRIBUTE,
        "Move.scaled",
        "tile is None or self.times == self.over",
        "tile is None or self.times <= self.over",
    ),
    Mutant(
        "plans of all ranks are taken for the same",
        AGREEMENT,
        "_verdict",
        "other[0] != first[0]",
        "other[0] != other[0]",
    ),
    Mutant(
        "a fault is looked for under the next call",
        AGREEMENT,
        "Agreement.cause",
        "store.check([self._fault(call)])",
        "store.check([self._fault(call + 1)])",
    ),
    Mutant(
        "strided shards are in the order of the mesh",
        LAYOUTS,
        "_layout",
        "{n: at for _, by in order or () for at, n in enumerate(by)}",
        "{n: at for _, by in order or () for at, n in enumerate(sorted(by))}",
    ),
    Mutant(
        "strided shards that torch cuts otherwise are left to ours",
        DROP_IN,
        "_move",
        "layout_of(src).as_torch and layout_of(dst).as_torch",
        "True",
    ),
    Mutant(
        "a gradient from another mesh goes on from the layout that this rank sees",
        REDISTRIBUTE,
        "_Redistribute.backward",
        "ctx.target.mesh != ctx.spec.mesh",
        "ctx.target.mesh is None",
    ),
    Mutant(
        "the gradient of an average is divided in a graph",
        REDISTRIBUTE,
        "without_addends",
        "replace(layout, type=layout.type.replace(partial=[]), averaged=1)",
        "replace(layout, type=layout.type.replace(partial=[]))",
    ),
    Mutant(
        "an uneven tile keeps its padding",
        PROGRAMS,
        "Program._cut",
        "self.plan.dst.tile_shape_at(position)",
        "self.plan.dst.tile_shape",
    ),
    Mutant(
        "places at unequal distances are a slice",
        REGIONS,
        "_steps",
        "np.array_equal(places, np.arange(first, first + step * len(places), step))",
        "True",
    ),
    Mutant(
        "one element is sent with the stride that it has",
        MESSAGES,
        "as_bytes",
        "tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8)",
        "tensor.view(torch.uint8).view(-1)",
    ),
    Mutant(
        "a partial source is reduced for each of its targets",
        MODEL,
        "ModelRedistribution._reduce",
        "reduction is not None and name not in self._reduced",
        "reduction is not None",
    ),
    Mutant(
        "gradients are sent under no_sync",
        GRADIENTS,
        "GradientSync._hook",
        "not self._synced",
        "self._synced is None",
    ),
    Mutant(
        "averages of gradients are sums",
        GRADIENTS,
        "GradientSync.wait",
        "summed / self._ranks",
        "summed * 1",
    ),
)
