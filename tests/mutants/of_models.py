"""Bugs in whole models: names, maps, atoms, copies, schedules, order, relabelling."""

from tests.mutants.mutant import Mutant

NAMES = "redistrib/models/names.py"
RULE = "redistrib/models/rule.py"
INTERPRET = "redistrib/models/interpret.py"
PATTERN = "redistrib/models/pattern.py"
ATOMS = "redistrib/models/atoms.py"
NORMAL_FORM = "redistrib/models/normal_form.py"
COPIES = "redistrib/models/copies.py"
SCHEDULE = "redistrib/models/schedule.py"
LOADS = "redistrib/models/loads.py"
BALANCE = "redistrib/models/balance.py"
BOUNDS = "redistrib/models/bounds.py"
MOVES = "redistrib/models/moves.py"
PLAN = "redistrib/models/model_plan.py"
ORDER = "redistrib/models/order.py"
MEMORY = "redistrib/models/memory.py"
TILES = "redistrib/models/tiles.py"
SEGMENTS = "redistrib/models/segments.py"
RELABEL = "redistrib/models/relabel.py"
CHECK = "redistrib/models/check.py"
GROUPS = "redistrib/models/groups.py"
COVERAGE = "redistrib/models/coverage.py"
VIEWS = "redistrib/models/views.py"
MESSAGES = "redistrib/backends/model_messages.py"
WIRE = "redistrib/backends/wire.py"
INVERSE = "redistrib/models/inverse.py"
TRACING = "redistrib/models/tracing.py"

MUTANTS = (
    Mutant(
        "a placeholder takes what its factor does not divide",
        NAMES,
        "Affine.solve",
        "None if rest or quotient < 0 else quotient",
        "None if quotient < 0 else quotient",
    ),
    Mutant(
        "a placeholder has two values in one name",
        NAMES,
        "Name.matches",
        "value is None or binding.setdefault(affine.placeholder, value) != value",
        "value is None or binding.setdefault(affine.placeholder, value) < 0",
    ),
    Mutant(
        "a rule with a range passes over targets without a source",
        RULE,
        "Rule.bindings",
        "next((name for name in self.sources(binding) if name not in have), None)",
        "next((name for name in self.sources(binding)[:1] if name not in have), None)",
    ),
    Mutant(
        "the last of several rules for a target holds",
        "redistrib/models/weight_map.py",
        "WeightMap.targets",
        "made.setdefault(name, Target(name, rule, binding))",
        "made.update({name: Target(name, rule, binding)})",
    ),
    Mutant(
        "parts of a concat may have other shapes",
        INTERPRET,
        "_interpret",
        "(*v.shape[:place], *v.shape[place + 1 :])",
        "v.shape[:place]",
    ),
    Mutant(
        "parts of two dtypes are put together without a cast",
        INTERPRET,
        "_require_one_dtype",
        "len(set(names)) > 1",
        "len(set(names)) > 2",
    ),
    Mutant(
        "a slice may end beyond its dimension",
        INTERPRET,
        "spans",
        "0 <= start <= stop <= n",
        "0 <= start <= stop",
    ),
    Mutant(
        "a pattern may lose a dimension",
        PATTERN,
        "Pattern.parse",
        "{name for group in before for name in group} - {n for g in after for n in g}",
        "{n for g in after for n in g} - {name for group in before for name in group}"
        " - {n for g in after for n in g}",
    ),
    Mutant(
        "part of a digit starts where the digit does",
        ATOMS,
        "Atom.taken",
        "_moved(self.offset, digit.dim, start * digit.stride)",
        "self.offset",
    ),
    Mutant(
        "part of a digit is read from where the digit is",
        ATOMS,
        "Atom.taken",
        "_moved(self.source_offset, digit.source_dim, start * digit.source_stride)",
        "self.source_offset",
    ),
    Mutant(
        "digits that are one run in the target alone are merged",
        ATOMS,
        "_one_run",
        "same and major.source_stride == minor.source_stride * minor.size",
        "same",
    ),
    Mutant(
        "a slice keeps a step of a digit too few",
        ATOMS,
        "between",
        "(high - 1 - start - minor) // digit.stride + 1",
        "(high - 1 - start - minor) // digit.stride",
    ),
    Mutant(
        "a stepped slice starts anywhere",
        ATOMS,
        "_congruent",
        "(atom.offset[dim] - start) % step == 0",
        "(atom.offset[dim] - start) % step >= 0",
    ),
    Mutant(
        "a digit may cross the end of a row",
        ATOMS,
        "aligned",
        "column + _extent(atom.digits[p] for p in places) < minor",
        "_extent(atom.digits[p] for p in places) < minor",
    ),
    Mutant(
        "a row that is begun is taken for a whole one",
        ATOMS,
        "_cut_once",
        "begun == 0 and digit.size % per_row == 0",
        "digit.size % per_row == 0",
    ),
    Mutant(
        "merged dimensions are numbered by the minor one",
        ATOMS,
        "_merged",
        "start * weights[dim]",
        "start",
    ),
    Mutant(
        "layers share the numbers in their indices",
        NORMAL_FORM,
        "NormalForms.of",
        "((k, binding[k]) for k in sorted(number_placeholders(expression)))",
        "((k, k) for k in sorted(number_placeholders(expression)))",
    ),
    Mutant(
        "parts of a segmented source begin at its start",
        NORMAL_FORM,
        "_in_parts",
        "range(start, end)",
        "range(0, end - start)",
    ),
    Mutant(
        "an atom is cut to the tiles of its target alone",
        COPIES,
        "copies",
        "_cut(part.swapped(), source)",
        "[part.swapped()]",
    ),
    Mutant(
        "a tile's part of a segmented array begins at the array's",
        SEGMENTS,
        "parts_of",
        "start * below",
        "0 * below",
    ),
    Mutant(
        "a device fetches what it has",
        SCHEDULE,
        "Route.receives",
        "own is not None and holder + step == held",
        "own is not None and holder + step < 0",
    ),
    Mutant(
        "one replica is sent all parts of a piece",
        SCHEDULE,
        "Route.sends",
        "(relay + part) % self.target.replicas",
        "relay % self.target.replicas",
    ),
    Mutant(
        "what is passed on has the dtype of the wire",
        SCHEDULE,
        "Route.__init__",
        "apart and narrow and target.replicas > 1",
        "apart and target.replicas > 1",
    ),
    Mutant(
        "replicas of a source do not take turns",
        SCHEDULE,
        "Route.receives",
        "source.offsets[(item + part) % source.replicas]",
        "source.offsets[item % source.replicas]",
    ),
    Mutant(
        "an array is not cut for the replicas that share it",
        SCHEDULE,
        "Route.__init__",
        "max(1, min(most, size // least_part))",
        "max(1, min(1, size // least_part))",
    ),
    Mutant(
        "elements cross in the widest dtype",
        SCHEDULE,
        "narrowest",
        "min(dtypes, key=itemsize)",
        "max(dtypes, key=itemsize)",
    ),
    Mutant(
        "pieces are cut by powers of two alone",
        SCHEDULE,
        "_divisor",
        "number % n == 0",
        "number % n == 0 and n & (n - 1) == 0",
    ),
    Mutant(
        "replicas begin where most has been given",
        BALANCE,
        "_next",
        "sums.append(total)",
        "sums.append(-total)",
    ),
    Mutant(
        "what replicas have given is forgotten",
        BALANCE,
        "_Shares.of",
        "self._by_layout.setdefault(key, [0] * tiles.replicas)",
        "[0] * tiles.replicas",
    ),
    Mutant(
        "the count of what is sent keeps to the first replicas",
        LOADS,
        "_turned",
        "offsets[(replica + turn) % tiles.replicas]",
        "offsets[replica]",
    ),
    Mutant(
        "counted bytes include what a device has",
        LOADS,
        "load_of",
        "whole * takes",
        "whole",
    ),
    Mutant(
        "what is passed on is counted once for all",
        LOADS,
        "load_of",
        "each * (target.replicas - 1) * crossing",
        "each * crossing",
    ),
    Mutant(
        "a partial target has the value on every device",
        TILES,
        "Tiles.holds_value",
        "not any(self.coordinate(digit, position) for digit in self.partial)",
        "not any(self.coordinate(digit, position) < 0 for digit in self.partial)",
    ),
    Mutant(
        "a target is made from what a later one brings",
        PLAN,
        "plan_model",
        "_once((moves[n] for n in order.items), targets)",
        "_once(moves, targets)",
    ),
    Mutant(
        "targets of other dtypes share what was brought",
        PLAN,
        "_once",
        "first[*where, dtypes] = Again(move.target, step.part, step.copy)",
        "first[*where, dtypes[:1]] = Again(move.target, step.part, step.copy)",
    ),
    Mutant(
        "a target may have another shape than the map makes",
        PLAN,
        "_check_fits",
        "made != t.shape",
        "len(made) != len(t.shape)",
    ),
    Mutant(
        "arrays that grow move first",
        ORDER,
        "_Board.by_law",
        "targets[item] <= freed[item]",
        "targets[item] > freed[item]",
    ),
    Mutant(
        "the search moves at once what raises the peak",
        ORDER,
        "_next",
        "(peaks == found.peak) & (board.targets[rest] <= freed).all(axis=1)",
        "(board.targets[rest] <= freed).all(axis=1)",
    ),
    Mutant(
        "the search releases a shared source while others need it",
        ORDER,
        "_with",
        "left == 0",
        "left >= 0",
    ),
    Mutant(
        "targets that are there already count when they move",
        MEMORY,
        "ordered",
        "into_targets and demands",
        "False and demands",
    ),
    Mutant(
        "a source is released after its first use",
        ORDER,
        "alive_bytes",
        "{source: n for n, item in enumerate(order) for source in demands[item].sources}",
        "{source: n for n, item in reversed([*enumerate(order)])"
        " for source in demands[item].sources}",
    ),
    Mutant(
        "scratch does not count in the peak",
        MEMORY,
        "Memory.peak",
        "self.alive + np.minimum(self.scratch, chunk)",
        "self.alive + 0 * np.minimum(self.scratch, chunk)",
    ),
    Mutant(
        "relabelling keeps as little in place as can be",
        RELABEL,
        "best_labels",
        "kept * (len(devices) + 1) + np.eye(len(devices), dtype=np.int64)",
        "-kept * (len(devices) + 1) + np.eye(len(devices), dtype=np.int64)",
    ),
    Mutant(
        "relabelling counts twice what two targets share",
        RELABEL,
        "best_labels",
        "step.copy.number is None or step.again is not None",
        "step.copy.number is None",
    ),
    Mutant(
        "relabelling keeps what a device is not asked for",
        RELABEL,
        "_kept",
        "takes_part & holds_value(target, here)",
        "takes_part",
    ),
    Mutant(
        "the checker lets an element be written twice",
        COVERAGE,
        "fault",
        "(written > 1).any()",
        "(written > 2).any()",
    ),
    Mutant(
        "the checker lets elements be left out",
        COVERAGE,
        "fault",
        "'get no value' if total < size else None",
        "None",
    ),
    Mutant(
        "a digit that all views have may begin within another",
        COVERAGE,
        "_apart",
        "first // stride % count == 0",
        "first // stride % count >= 0",
    ),
    Mutant(
        "cells are as large as the views are apart",
        COVERAGE,
        "_grain",
        "gcd(first, inner, *(stride for _, stride in digits if stride > 1))",
        "gcd(first, *(stride for _, stride in digits if stride > 1))",
    ),
    Mutant(
        "what is passed on may come later",
        COVERAGE,
        "Written.holds",
        "self._elements.issuperset(numbers(view).tolist())",
        "bool(self._elements) or self._elements.issuperset(numbers(view).tolist())",
    ),
    Mutant(
        "the checker takes the first elements of views for all",
        CHECK,
        "_same",
        "np.array_equal(*views.at) and views.steps[WRITTEN] == views.steps[READ]",
        "np.array_equal(*views.at)",
    ),
    Mutant(
        "the checker looks at no dtypes on the way",
        CHECK,
        "_Check._agree",
        "name is None or name != transfer.source or dtypes != transfer.dtypes",
        "name is None or name != transfer.source",
    ),
    Mutant(
        "the checker lets a target be made twice",
        CHECK,
        "_Check.run",
        "move.target in self._origins",
        "move.target in ()",
    ),
    Mutant(
        "the checker lets one send what nobody waits for",
        GROUPS,
        "collected",
        "not np.array_equal(_sorted(expected), _sorted(sent))",
        "len(expected) > len(sent)",
    ),
    Mutant(
        "moves of one kind may mean other elements",
        CHECK,
        "_Check.run",
        "kinds.of(move, origin.made, sources)",
        "kinds.of(move, None, sources)",
    ),
    Mutant(
        "targets of one rule may take their sources in another order",
        NORMAL_FORM,
        "NormalForms.of",
        "tuple(names[name] for name in taken)",
        "tuple(names[name] for name in names)",
    ),
    Mutant(
        "a view may wrap around the end of a row",
        VIEWS,
        "_straight",
        "column + sum((views.counts[k] - 1) * steps[k] for k in small) < minor",
        "column + sum((views.counts[k] - 1) * steps[k] for k in small) < 2 * minor",
    ),
    Mutant(
        "a view may cross into the next part of a concat",
        VIEWS,
        "between",
        "inside = first == last",
        "inside = first <= last",
    ),
    Mutant(
        "the indices of a device are of one period",
        VIEWS,
        "_digits_of",
        "int(other[0]) + 1 if len(other) else len(starts)",
        "len(starts)",
    ),
    Mutant(
        "the inverse of a dropped dimension of size 1 lacks it",
        INVERSE,
        "_joined",
        "dim not in fixed and (dim in first.dropped or any(s[dim] != span for s in spans_of))",
        "dim not in fixed and any(s[dim] != span for s in spans_of)",
    ),
    Mutant(
        "a trace reads numpy's i8 as one byte",
        TRACING,
        "TracedArray.astype",
        "dtype_name(np.dtype(dtype))",
        "dtype_name(dtype)",
    ),
    Mutant(
        "views that overlap count both in the bound",
        BOUNDS,
        "least_bytes",
        "np.maximum(most[view.devices], bytes_)",
        "most[view.devices] + bytes_",
    ),
    Mutant(
        "views are told apart where the end of one is that of the next",
        BOUNDS,
        "_swept",
        "line.start > end",
        "line.start >= end",
    ),
    Mutant(
        "views are told apart by where they start, modulo a stride",
        BOUNDS,
        "_lines_apart",
        "gap > a.extent(modulus) and gap + b.extent(modulus) < modulus",
        "gap > 0 and gap + b.extent(modulus) < modulus",
    ),
    Mutant(
        "views are not told apart modulo a stride",
        BOUNDS,
        "_lines_apart",
        "gap > a.extent(modulus)",
        "gap > modulus",
    ),
    Mutant(
        "a piece of a transfer is read from the start of it",
        "redistrib/models/transfers.py",
        "Transfer.cut",
        "view.source_offset + start * source",
        "view.source_offset",
    ),
    Mutant(
        "arrays that run together hold as much as one",
        MEMORY,
        "Memory.together",
        "(self.targets if into_targets else self.allocated[last])",
        "(self.targets if into_targets else 0 * self.allocated[last])",
    ),
    Mutant(
        "sources are released before the last array that they make",
        MESSAGES,
        "_batch",
        "last[name] < end",
        "last[name] > -1",
    ),
    Mutant(
        "a message takes all of the scratch",
        MESSAGES,
        "_batch",
        "plan.together(first, end - 1)[1] // 2",
        "plan.together(first, end - 1)[1] * 2",
    ),
    Mutant(
        "arrays run together whatever they hold",
        MESSAGES,
        "batches",
        "plan.together(first, n)[0] > peak",
        "n < first",
    ),
    Mutant(
        "a block of int8 has the scale of the first element",
        WIRE,
        "Wire.encoded",
        "np.abs(padded).max(axis=1, initial=0)",
        "np.abs(padded)[:, 0]",
    ),
    Mutant(
        "an infinity on the wire comes out as a number",
        WIRE,
        "Wire.decoded",
        "np.where(np.isfinite(scale), scale, np.nan)",
        "np.where(np.isfinite(scale), scale, 1)",
    ),
)
