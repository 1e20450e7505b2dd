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
        "    if axes[dim][:1] != (axis,):\n",
        "    if axis not in axes[dim]:\n",
    ),
    Mutant(
        "a sliced axis need not divide the tile",
        CALCULUS,
        "    if not tile or tile % axis.size:\n",
        "    if not tile or tile < axis.size:\n",
    ),
    Mutant(
        "a slice may use an axis twice",
        CALCULUS,
        "    if any(axis in used for used in axes):\n",
        "    if axis in axes[dim]:\n",
    ),
    Mutant(
        "an all_permute may change the tile",
        CALCULUS,
        "            if after.tile_shape != t.tile_shape:\n",
        "            if after.tile_size != t.tile_size:\n",
    ),
    Mutant(
        "tops of different sizes may swap",
        CALCULUS,
        "            _same_size(t, a, b)\n",
        "",
    ),
    Mutant(
        "the axes of a dimension own it minor first",
        CALCULUS,
        "            for axis in reversed(dim.axes):\n                found[axis]",
        "            for axis in dim.axes:\n                found[axis]",
    ),
    Mutant(
        "the paper's view of a type lists axes major first",
        CALCULUS,
        "dims.append(Dim(tile, tuple(reversed(axes)), n))",
        "dims.append(Dim(tile, tuple(axes), n))",
    ),
    Mutant(
        "the weak rule takes the top only",
        CALCULUS,
        "on_top = [d.axes if at != dim else (axis, *rest) for at, d in enumerate(t.dims)]",
        "on_top = [d.axes for d in t.dims]",
    ),
    Mutant(
        "the easy program slices in the order of the text",
        NORMAL_FORM,
        "for at, dim in enumerate(dst.dims) for axis in reversed(dim.axes)]",
        "for at, dim in enumerate(dst.dims) for axis in dim.axes]",
    ),
    Mutant(
        "gather and slice of one axis in two dimensions move it the wrong way",
        NORMAL_FORM,
        "return (Move(i, j, a),) if a == b else (step, gather)",
        "return (Move(j, i, a),) if a == b else (step, gather)",
    ),
    Mutant(
        "gather and slice of one size replace the new axis by the old",
        NORMAL_FORM,
        "return (ReplaceTop(i, a, b),)",
        "return (ReplaceTop(i, b, a),)",
    ),
    Mutant(
        "an axis replaces one of another size",
        NORMAL_FORM,
        "            if a.size == b.size:\n                return (ReplaceTop",
        "            if a.size >= b.size:\n                return (ReplaceTop",
    ),
    Mutant(
        "a gather passes a slice without the swap of their axes",
        NORMAL_FORM,
        "            return step, SwapWithin(i, b, a), gather\n        case Move",
        "            return step, gather\n        case Move",
    ),
    Mutant(
        "a gather passes a move from its dimension without a swap",
        NORMAL_FORM,
        "                return SwapWithin(i, a, c), step, gather\n            if i == m and",
        "                return step, gather\n            if i == m and",
    ),
    Mutant(
        "a gather stays where its axis was, though the tops swap",
        NORMAL_FORM,
        "return SwapTops(i, k, a, c), Gather(k, a)",
        "return SwapTops(i, k, a, c), Gather(i, a)",
    ),
    Mutant(
        "a gather passes a swap of tops without restoring the order",
        NORMAL_FORM,
        "return SwapWithin(i, a, c), step, SwapWithin(i, a, d), gather",
        "return SwapWithin(i, a, c), step, gather",
    ),
    Mutant(
        "a gather of what replaces a top gathers that, not what is replaced",
        NORMAL_FORM,
        "return SwapWithin(i, a, c), Gather(i, c)",
        "return SwapWithin(i, a, c), Gather(i, a)",
    ),
    Mutant(
        "a slice goes before a move whether it fits there or not",
        NORMAL_FORM,
        "            if i == k and t.dims[k].tile % b.size:\n",
        "            if i == k and b.size > t.dims[k].size:\n",
    ),
    Mutant(
        "a slice passes a move onto its dimension without a swap",
        NORMAL_FORM,
        "return following, step, SwapWithin(i, b, c)",
        "return following, step",
    ),
    Mutant(
        "a slice passes a swap of tops without restoring the order",
        NORMAL_FORM,
        "return following, SwapWithin(i, b, c), step, SwapWithin(i, b, d)",
        "return following, SwapWithin(i, b, c), step",
    ),
    Mutant(
        "a slice passes a swap of tops as if they were not its dimension's",
        NORMAL_FORM,
        "                return following, SwapWithin(i, b, c), step, SwapWithin(i, b, d)\n",
        "                return following, step\n",
    ),
    Mutant(
        "a slice by a replaced axis swaps the wrong tops",
        NORMAL_FORM,
        "return Slice(i, r), SwapTops(i, k, r, c)",
        "return Slice(i, r), SwapTops(i, k, c, r)",
    ),
    Mutant(
        "rewriting does not look back",
        NORMAL_FORM,
        "        at = max(at - 1, 0)\n",
        "        at = max(at, 0)\n",
    ),
    Mutant(
        "a slice of the search needs room, not divisibility",
        SEARCH,
        "if pushed[size] < count and self.lengths[dim] and tile[dim] % size == 0:",
        "if pushed[size] < count and self.lengths[dim] and tile[dim] >= size:",
    ),
    Mutant(
        "the search takes an all_to_all for a permute",
        SEARCH,
        "                cost = elements - elements // group\n",
        "                cost = elements\n",
    ),
    Mutant(
        "the search stops where its halves first meet",
        SEARCH,
        "if not costs or (best is not None and min(costs)[0] >= best[0]):",
        "if not costs or best is not None:",
    ),
    Mutant(
        "the way back from the target slices what it should gather",
        SEARCH,
        "                yield Gather(dim, axis)\n            case Move",
        "                yield Slice(dim, axis)\n            case Move",
    ),
    Mutant(
        "the way back from the target moves forwards",
        SEARCH,
        "                yield Move(target, source, axis)\n",
        "                yield Move(source, target, axis)\n",
    ),
    Mutant(
        "the search counts what may stay as what has to leave",
        SEARCH,
        "        above = stack[kept:]\n",
        "        above = stack\n",
    ),
    Mutant(
        "the permute between the halves is dropped",
        SEARCH,
        "between = [] if before == after else [Permute",
        "between = [] if before != after else [Permute",
    ),
    Mutant(
        "an axis that a permute frees takes no role",
        DERIVATION,
        "            routes[end] = start\n",
        "            routes[end] = end\n",
    ),
    Mutant(
        "a lowered slice slices what was owned before, too",
        DERIVATION,
        "added = {axis: index for axis, index in new.items() if axis not in old}",
        "added = dict(new)",
    ),
)
