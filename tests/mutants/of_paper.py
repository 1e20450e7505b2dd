"""Bugs in the paper's strategy: its typing rules, its rewrite rules, its search, its lowering."""

from tests.mutants.mutant import Mutant

CALCULUS = "redistrib/synth/planner/paper/calculus.py"
NORMAL_FORM = "redistrib/synth/planner/paper/normal_form.py"
SEARCH = "redistrib/synth/planner/paper/search.py"
DERIVATION = "redistrib/synth/planner/paper/derivation.py"

MUTANTS = (
    Mutant(
        "any axis of a dimension is its top",
        CALCULUS,
        "_pop",
        "axes[dim][:1] != (axis,)",
        "axis not in axes[dim]",
    ),
    Mutant(
        "a sliced axis need not divide the tile",
        CALCULUS,
        "_push",
        "tile % axis.size",
        "tile < axis.size",
    ),
    Mutant(
        "a slice may use an axis twice",
        CALCULUS,
        "_push",
        """
if any((axis in used for used in axes)):
    ...
tile = t.dims[dim].size // prod((a.size for a in axes[dim]))
""",
        """
if axis in axes[dim]:
    ...
tile = t.dims[dim].size // prod((a.size for a in axes[dim]))
""",
    ),
    Mutant(
        "an all_permute may change the tile",
        CALCULUS,
        "apply",
        "after.tile_shape != t.tile_shape",
        "after.tile_size != t.tile_size",
    ),
    Mutant(
        "tops of different sizes may swap",
        CALCULUS,
        "apply",
        """
_pop(t, axes, second, b)
_same_size(t, a, b)
""",
        "_pop(t, axes, second, b)",
    ),
    Mutant(
        "the axes of a dimension own it minor first",
        CALCULUS,
        "PaperType.owners",
        "reversed(dim.axes)",
        "dim.axes",
    ),
    Mutant(
        "the paper's view of a type lists axes major first",
        CALCULUS,
        "PaperType.of",
        "reversed(axes)",
        "axes",
    ),
    Mutant(
        "the weak rule takes the top only",
        CALCULUS,
        "apply_weak",
        "[d.axes if at != dim else (axis, *rest) for at, d in enumerate(t.dims)]",
        "[d.axes for d in t.dims]",
    ),
    Mutant(
        "the easy program slices in the order of the text",
        NORMAL_FORM,
        "easy",
        "reversed(dim.axes)",
        "dim.axes",
    ),
    Mutant(
        "gather and slice of one axis in two dimensions move it the wrong way",
        NORMAL_FORM,
        "_delay",
        "Move(i, j, a)",
        "Move(j, i, a)",
    ),
    Mutant(
        "gather and slice of one size replace the new axis by the old",
        NORMAL_FORM,
        "_delay",
        "ReplaceTop(i, a, b)",
        "ReplaceTop(i, b, a)",
    ),
    Mutant(
        "an axis replaces one of another size",
        NORMAL_FORM,
        "_delay",
        """
if a.size == b.size:
    ...
""",
        """
if a.size >= b.size:
    ...
""",
    ),
    Mutant(
        "a gather passes a slice without the swap of their axes",
        NORMAL_FORM,
        "_delay",
        """
if a.size == b.size:
    ...
return (step, SwapWithin(i, b, a), gather)
""",
        """
if a.size == b.size:
    ...
return (step, gather)
""",
    ),
    Mutant(
        "a gather passes a move from its dimension without a swap",
        NORMAL_FORM,
        "_delay",
        "SwapWithin(i, a, c), step, gather",
        "step, gather",
    ),
    Mutant(
        "a gather stays where its axis was, though the tops swap",
        NORMAL_FORM,
        "_delay",
        "SwapTops(i, k, a, c), Gather(k, a)",
        "SwapTops(i, k, a, c), Gather(i, a)",
    ),
    Mutant(
        "a gather passes a swap of tops without restoring the order",
        NORMAL_FORM,
        "_delay",
        "SwapWithin(i, a, c), step, SwapWithin(i, a, d), gather",
        "SwapWithin(i, a, c), step, gather",
    ),
    Mutant(
        "a gather of what replaces a top gathers that, not what is replaced",
        NORMAL_FORM,
        "_delay",
        "SwapWithin(i, a, c), Gather(i, c)",
        "SwapWithin(i, a, c), Gather(i, a)",
    ),
    Mutant(
        "a slice goes before a move whether it fits there or not",
        NORMAL_FORM,
        "_advance",
        "t.dims[k].tile % b.size",
        "b.size > t.dims[k].size",
    ),
    Mutant(
        "a slice passes a move onto its dimension without a swap",
        NORMAL_FORM,
        "_advance",
        "following, step, SwapWithin(i, b, c)",
        "following, step",
    ),
    Mutant(
        "a slice passes a swap of tops without restoring the order",
        NORMAL_FORM,
        "_advance",
        "following, SwapWithin(i, b, c), step, SwapWithin(i, b, d)",
        "following, SwapWithin(i, b, c), step",
    ),
    Mutant(
        "a slice passes a swap of tops as if they were not its dimension's",
        NORMAL_FORM,
        "_advance",
        "following, SwapWithin(i, b, c), step, SwapWithin(i, b, d)",
        "following, step",
    ),
    Mutant(
        "a slice by a replaced axis swaps the wrong tops",
        NORMAL_FORM,
        "_advance",
        "Slice(i, r), SwapTops(i, k, r, c)",
        "Slice(i, r), SwapTops(i, k, c, r)",
    ),
    Mutant(
        "rewriting does not look back",
        NORMAL_FORM,
        "normal_form",
        "at - 1",
        "at",
    ),
    Mutant(
        "a slice of the search needs room, not divisibility",
        SEARCH,
        "_Half._edges",
        "tile[dim] % size == 0",
        "tile[dim] >= size",
    ),
    Mutant(
        "the search takes an all_to_all for a permute",
        SEARCH,
        "_Half._shifts",
        "elements - elements // group",
        "elements",
    ),
    Mutant(
        "the search stops where its halves first meet",
        SEARCH,
        "_with_permutes",
        "best is not None and min(costs)[0] >= best[0]",
        "best is not None",
    ),
    Mutant(
        "the way back from the target slices what it should gather",
        SEARCH,
        "_reversed",
        "Gather(dim, axis)",
        "Slice(dim, axis)",
    ),
    Mutant(
        "the way back from the target moves forwards",
        SEARCH,
        "_reversed",
        "Move(target, source, axis)",
        "Move(source, target, axis)",
    ),
    Mutant(
        "the search counts what may stay as what has to leave",
        SEARCH,
        "_Shifting.leaving",
        "stack[kept:]",
        "stack",
    ),
    Mutant(
        "the permute between the halves is dropped",
        SEARCH,
        "_with_permutes",
        "before == after",
        "before != after",
    ),
    Mutant(
        "an axis that a permute frees takes no role",
        DERIVATION,
        "_permute",
        "routes[end] = start",
        "routes[end] = end",
    ),
    Mutant(
        "a lowered slice slices what was owned before, too",
        DERIVATION,
        "lower",
        """
added = {axis: index for axis, index in new.items() if axis not in old}
steps.append(DynamicSlice(tuple(sorted(merge_state(added)))))
""",
        """
added = dict(new)
steps.append(DynamicSlice(tuple(sorted(merge_state(added)))))
""",
    ),
)
