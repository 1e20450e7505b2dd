"""Bugs in uneven types: their blocks, their form, padding, exchanges of blocks, their checker."""

from tests.mutants.mutant import Mutant

UNEVEN = "redistrib/types/uneven.py"
FORM = "redistrib/types/uneven_form.py"
PADDING = "redistrib/types/padding.py"
BLOCKS = "redistrib/synth/plan/blocks.py"
CHECKED = "redistrib/checker/blocks.py"
TILES = "redistrib/backends/simulator/blocks.py"
STEPS = "redistrib/synth/planner/uneven.py"
COPIES = "redistrib/models/copies.py"
SCHEDULE = "redistrib/models/schedule.py"

MUTANTS = (
    Mutant(
        "balanced blocks: the larger ones are the last",
        UNEVEN,
        "block_ends",
        "min(block, more)",
        "max(0, block - more)",
    ),
    Mutant(
        "nested cuts as balanced does",
        UNEVEN,
        "block_ends",
        "-(-size // count)",
        "max(1, size // count)",
    ),
    Mutant(
        "a padded size is that without the local factor at the end",
        UNEVEN,
        "padded_size",
        "-(-n // product) * product",
        "max(product, n // product * product)",
    ),
    Mutant(
        "a cut-off block counts whole",
        UNEVEN,
        "count_held",
        "count + min(left, stride)",
        "count + stride",
    ),
    Mutant(
        "runs under ceil go beyond the size",
        UNEVEN,
        "runs_held",
        "np.minimum(starts + stride, n)",
        "starts + stride",
    ),
    Mutant(
        "the number of a block is read minor first",
        UNEVEN,
        "_block",
        "number * factor.size + value",
        "number + factor.size * value",
    ),
    Mutant(
        "an idle local factor stays",
        FORM,
        "_under_ceil",
        "Local(-(-n // stride)) if top else factor",
        "factor",
    ),
    Mutant(
        "idle digits stay where they are",
        FORM,
        "_under_ceil",
        "sorted(idle, key=lambda d: (order[d.axis], d.pre))",
        "idle",
    ),
    Mutant(
        "a part of an axis is not merged with an idle one",
        FORM,
        "_goes_on",
        "(major.axis, major.end) == (minor.axis, minor.pre)",
        "(major.axis, major.pre) == (minor.axis, minor.end)",
    ),
    Mutant(
        "blocks that ceil can say keep their rule",
        FORM,
        "canonical_uneven",
        "under_ceil is not None",
        "under_ceil is not None and len(under_ceil) < 2",
    ),
    Mutant(
        "the meaning of blocks is without their owners",
        FORM,
        "_Owners.meaning",
        "tuple(self._owned()), tuple(self.positions.tolist()), tuple(self.runs[:, 1].tolist())",
        "tuple(self.runs[:, 1].tolist())",
    ),
    Mutant(
        "two padded sizes need not agree",
        PADDING,
        "common_padding",
        "wanted or size is None",
        "size is None",
    ),
    Mutant(
        "a device does not keep what it holds",
        BLOCKS,
        "homes",
        "np.where(own >= 0, own, spread)",
        "spread",
    ),
    Mutant(
        "the owner of a cell is that of the next run",
        BLOCKS,
        "cells_of",
        'np.searchsorted(begin, starts, "right") - 1',
        'np.minimum(np.searchsorted(begin, starts, "right"), len(begin) - 1)',
    ),
    Mutant(
        "what a device sends itself counts as sent",
        BLOCKS,
        "block_traffic",
        "np.subtract.at(served, home, kept)",
        "None",
    ),
    Mutant(
        "addends are exchanged before they are reduced",
        STEPS,
        "block_steps",
        "here = steps[-1].apply(src)",
        "steps = steps[:-1]",
    ),
    Mutant(
        "the checker counts what stays as received",
        CHECKED,
        "block_loads",
        "int((requests.wanted - requests.kept).max())",
        "int(requests.wanted.max())",
    ),
    Mutant(
        "the checker pads whatever a plan says",
        CHECKED,
        "padded_ends",
        "cut == t",
        "cut.shape == t.shape",
    ),
    Mutant(
        "the checker takes the bound of a sum for that of its addends",
        CHECKED,
        "block_bound",
        "return dst.tile_size",
        "pass",
    ),
    Mutant(
        "tiles of other shapes are not where they belong",
        TILES,
        "_places",
        "np.arange(len(indices))",
        "np.arange(len(indices))[::-1]",
    ),
    Mutant(
        "atoms are not cut where blocks end",
        COPIES,
        "_start",
        "bisect_right(ends, position) - 1",
        "bisect_right(ends, position) - 2",
    ),
    Mutant(
        "views are those of the largest tile",
        "redistrib/models/tile_views.py",
        "_relaid",
        "largest == actual",
        "len(largest) > 1",
    ),
    Mutant(
        "runs are merged before they are where they lie",
        SCHEDULE,
        "Route._tables",
        "runs if self.uneven else (merged(runs[0]), merged(runs[1]))",
        "(merged(runs[0]), merged(runs[1]))",
    ),
)
