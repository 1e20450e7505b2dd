"""Bugs in the mpi backend: what is sent, when it may be read, and what ranks agree on."""

from tests.mutants.mutant import Mutant

ADDING = "redistrib/backends/mpi/adding.py"
REPEATED_CALL = "redistrib/backends/mpi/repeated_call.py"
AGREEMENT = "redistrib/backends/mpi/agreement.py"
ARRAYS = "redistrib/backends/mpi/arrays.py"
CALL_ARRAYS = "redistrib/backends/mpi/call_arrays.py"
CALLS = "redistrib/backends/mpi/calls.py"
CHECKS = "redistrib/backends/mpi/checks.py"
COMMUNICATORS = "redistrib/backends/mpi/communicators.py"
DATATYPES = "redistrib/backends/mpi/datatypes.py"
EXCHANGE = "redistrib/backends/mpi/exchange.py"
FAULTS = "redistrib/backends/mpi/faults.py"
FLOWS = "redistrib/backends/mpi/flows.py"
INDEX_RANGES = "redistrib/backends/mpi/index_ranges.py"
LAYOUTS = "redistrib/backends/mpi/layouts.py"
PROBLEM = "redistrib/backends/mpi/problem.py"
OVERLAPS = "redistrib/backends/mpi/overlaps.py"
REDISTRIBUTION = "redistrib/backends/mpi/redistribution.py"
REDUCTION = "redistrib/backends/mpi/reduction.py"
REQUESTS = "redistrib/backends/mpi/requests.py"
SPREAD = "redistrib/backends/mpi/spread.py"
STREAMS = "redistrib/backends/mpi/streams.py"

MUTANTS = (
    Mutant(
        "messages are kept for the tiles of any later call",
        EXCHANGE,
        "TileExchange._direct",
        "bound == places and (not kept.under_way)",
        "not kept.under_way",
    ),
    Mutant(
        "messages of a call under way are started again",
        REQUESTS,
        "Outstanding.repeat",
        "messages.under_way = True",
        "",
    ),
    Mutant(
        "calls of one object begin whatever the one before is at",
        CALLS,
        "Running.settled",
        "begun and self._at_once() and (not self.spoilt)",
        "begun",
    ),
    Mutant(
        "a call goes on where the one before it was left",
        CALLS,
        "Running._leave",
        "later.spoilt = later.begun",
        "pass",
    ),
    Mutant(
        "a call begins after one that timed out",
        AGREEMENT,
        "Watch.entered",
        "self.check_open()",
        "pass",
    ),
    Mutant(
        "a call begun before the fault of an earlier one waits for its rank",
        FAULTS,
        "Faults.concerning",
        "self.raised and (operation.meeting or known.number == operation.number)",
        "self.raised",
    ),
    Mutant(
        "messages that are kept have the tag of the first call",
        EXCHANGE,
        "TileExchange._direct",
        "[channel.tag, *places_of((*sources, *targets))]",
        "places_of((*sources, *targets))",
    ),
    Mutant(
        "word that an overlap was copied goes out before the copy",
        EXCHANGE,
        "_SharedSend.finish",
        """
_copy(self.stream.overlaps, self.source, self.target)
self.outstanding.send(EMPTY, self.stream.peer)
""",
        """
self.outstanding.send(EMPTY, self.stream.peer)
_copy(self.stream.overlaps, self.source, self.target)
""",
    ),
    Mutant(
        "a call with a shared result does not wait for the copies of others",
        EXCHANGE,
        "TileExchange.run.meanwhile",
        "outstanding.receive(EMPTY, peer)",
        "pass",
    ),
    Mutant(
        "a tile is written before its rank is in the call",
        EXCHANGE,
        "_SharedSend.post",
        "outstanding.receive(EMPTY, self.stream.peer, owner)",
        "outstanding.send([None, 0, MPI.BYTE], MPI.PROC_NULL, owner)",
    ),
    Mutant(
        "a call that is at its end is kept",
        CALLS,
        "Running._end",
        "self._under_way.remove(self)",
        "pass",
    ),
    Mutant(
        "a call goes on in its own wait alone",
        CALLS,
        "Running.advance",
        "not self._lock.acquire(blocking=False)",
        "True",
    ),
    Mutant(
        "who leaves a call tells nobody",
        AGREEMENT,
        "Watch.left",
        "alive() and not (known or self._met(operation) or self.private.lost)",
        "False",
    ),
    Mutant(
        "an error keeps the arrays of the call that it came from",
        AGREEMENT,
        "Watch.entered",
        "del error",
        "pass",
    ),
    Mutant(
        "ranks agree whatever they were given",
        AGREEMENT,
        "Watch._outcome",
        "same != other",
        "False",
    ),
    Mutant(
        "an error on one rank is no error in a meeting",
        AGREEMENT,
        "Watch._agree",
        "comm.size if error is None else comm.rank",
        "comm.size",
    ),
    Mutant(
        "who has not raised a fault never does",
        AGREEMENT,
        "Watch._outcome",
        "failed < comm.size or (teller < comm.size and (not raised))",
        "failed < comm.size",
    ),
    Mutant(
        "a fault that all have raised is raised again",
        AGREEMENT,
        "Watch._outcome",
        "failed < comm.size or (teller < comm.size and (not raised))",
        "failed < comm.size or teller < comm.size",
    ),
    Mutant(
        "a rank in error tells nobody",
        AGREEMENT,
        "Watch.failed",
        "faults.tell(fault)",
        "",
    ),
    Mutant(
        "a rank that waits hears of no fault",
        AGREEMENT,
        "Watch.some",
        "self.listen(outstanding, operation)",
        "pass",
    ),
    Mutant(
        "nobody asks what others are at",
        AGREEMENT,
        "Watch.some",
        "self.private.faults.ask(operation, outstanding.peers)",
        "pass",
    ),
    Mutant(
        "the call after one that failed does not meet",
        FAULTS,
        "Faults.entering",
        "self.raised or (self.known is not None and self.known.number < operation.number)",
        "False",
    ),
    Mutant(
        "what is told between two meetings is lost where the first is not over yet",
        FAULTS,
        "Faults.listen",
        "self._early.append(notice)",
        "pass",
    ),
    Mutant(
        "tags stay after a fault",
        COMMUNICATORS,
        "Private.clear_faults",
        "self._shift += self.last_number",
        "",
    ),
    Mutant(
        "every call agrees first",
        REDISTRIBUTION,
        "Redistribution._transfer",
        'meets or self._order is None or (not self.fused) or (self._check == "all")',
        "True",
    ),
    Mutant(
        "no call agrees first",
        REDISTRIBUTION,
        "Redistribution._transfer",
        'self._check == "all"',
        "False",
    ),
    Mutant(
        "what is given up reads and writes memory that is free",
        REQUESTS,
        "Outstanding.give_up",
        "keep(self.requests, self.arrays)",
        "keep(self.requests)",
    ),
    Mutant(
        "two threads on a communicator take turns",
        COMMUNICATORS,
        "claimed",
        "error = _mixed()",
        "",
    ),
    Mutant(
        "positions are ranks, whatever the order of devices",
        CHECKS,
        "_checked",
        "t.mesh.ids",
        "tuple(range(t.mesh.num_devices))",
    ),
    Mutant(
        "a subclass of arrays is taken for its data",
        CHECKS,
        "check_tile",
        "type(tile) not in (np.ndarray, np.memmap)",
        "not isinstance(tile, np.ndarray)",
    ),
    Mutant(
        "results of a batch may be one array",
        CHECKS,
        "check_results",
        "any(_overlap(a, b) for a, b in combinations(given, 2))",
        "False",
    ),
    Mutant(
        "what a step routes is put where it was taken",
        "redistrib/backends/mpi/steps.py",
        "_routed",
        "segments(np.full(len(take), size), take * size, put * size)",
        "segments(np.full(len(take), size), take * size, take * size)",
    ),
    Mutant(
        "F-ordered tiles are seen as C-ordered ones",
        CHECKS,
        "memory_order",
        "F_ORDER if all(array.flags.f_contiguous for array in given) else C_ORDER",
        "C_ORDER",
    ),
    Mutant(
        "gather is to rank 0",
        ARRAYS,
        "gather",
        "[root]",
        "[0]",
    ),
    Mutant(
        "what a rank holds it fetches from others",
        OVERLAPS,
        "OverlapSearch._routes",
        "~np.isin(receivers, ranks)",
        "receivers != ranks[0]",
    ),
    Mutant(
        "the first of the ranks that hold a box sends it to all",
        OVERLAPS,
        "_turns",
        "np.arange(len(sizes)) % count",
        "np.arange(len(sizes)) * 0",
    ),
    Mutant(
        "what two tiles share begins where the run of the first does",
        INDEX_RANGES,
        "common",
        "np.maximum(a.starts[at_a], b.starts[at_b])",
        "a.starts[at_a]",
    ),
    Mutant(
        "places that fill whole rows are evenly nested",
        INDEX_RANGES,
        "_regular",
        """
if left or not all(
    ((x.reshape(rows, width) - x[::width, None] == x[:width] - x[0]).all() for x in (a, b))
):
    ...
""",
        """
if left and (
    not all(((x.reshape(rows, width) - x[::width, None] == x[:width] - x[0]).all() for x in (a, b)))
):
    ...
""",
    ),
    Mutant(
        "the rest of a piece that is no whole slab stays behind",
        STREAMS,
        "cut",
        "range(0, shape[axis], step)",
        "range(0, shape[axis] - step + 1, step)",
    ),
    Mutant(
        "a chunk is taken for complete with the first of its messages",
        FLOWS,
        "transfer",
        "not left[number, slot]",
        "left[number, slot] >= 0",
    ),
    Mutant(
        "a datatype of several levels has the strides of the innermost",
        DATATYPES,
        "_strided",
        "made.Create_hvector(count, 1, stride)",
        "made.Create_vector(count, 1, 1)",
    ),
    Mutant(
        "the first addend is reduced with what was there",
        ADDING,
        "Adding.reduce",
        "op(total, value, out=into)",
        "op(into, value, out=into)",
    ),
    Mutant(
        "own addends are overwritten in place before they are added",
        REDUCTION,
        "_Lane.finish",
        "np.may_share_memory(part, value)",
        "False",
    ),
    Mutant(
        "addends go into place where the own ones are",
        REDUCTION,
        "Reduction.__init__",
        "alone and (not first.merges)",
        "not first.merges",
    ),
    Mutant(
        "buffers for what is sent are not counted",
        REDUCTION,
        "Reduction._take_buffers",
        "DEPTH if DEPTH * sum(s.chunk_bytes for s in buffered) <= self._room else 1",
        "DEPTH",
    ),
    Mutant(
        "half of the scratch is kept where nothing is exchanged after a reduction",
        REDUCTION,
        "Reduction.__init__",
        "scratch if alone else half",
        "half",
    ),
    Mutant(
        "a wide sum is rounded in each step",
        ADDING,
        "Adding.reduce",
        "self.accumulate is not None",
        "False",
    ),
    Mutant(
        "any result may be its tile",
        ADDING,
        "all_reduces",
        "dst == _reduced(src)",
        "True",
    ),
    Mutant(
        "own addends are cut by their own buffer",
        REDUCTION,
        "_Lane.__init__",
        "stream.chunk, stream.limits = put.chunk, put.limits",
        "",
    ),
    Mutant(
        "a reduced array is exchanged among all who want it, whatever their addends",
        REDUCTION,
        "Reduction.__init__",
        "before.groups(kept), after.groups(kept)",
        "before.groups(()), after.groups(())",
    ),
    Mutant(
        "a call may overwrite its own source",
        CHECKS,
        "check_results",
        "tile is not None and _overlap(out, tile)",
        "tile is out",
    ),
    Mutant(
        "a sub-array is taken from the begin of the tile",
        INDEX_RANGES,
        "IndexRanges.within",
        "IndexRanges(part.starts - low, part.stops - low, part.places)",
        "IndexRanges(part.starts - low, part.stops - low, part.places - part.places[:1])",
    ),
    Mutant(
        "the indices of a sub-array are those of its array",
        INDEX_RANGES,
        "IndexRanges.within",
        "IndexRanges(part.starts - low, part.stops - low, part.places)",
        "part",
    ),
    Mutant(
        "shares of a sub-array begin where the tile does",
        REDUCTION,
        "_parts",
        "first + sizes[dim] * at // count",
        "sizes[dim] * at // count",
    ),
    Mutant(
        "a target with a sub-array is made without what was there",
        CALL_ARRAYS,
        "CallArrays.result",
        "self.problem.subarrays[1] is not None",
        "False",
    ),
    Mutant(
        "what is moved alone runs the steps of its plan",
        PROBLEM,
        "Problem._has_addends",
        "self.src.mesh == self.dst.mesh and bool(self.src.partial or self.dst.partial)",
        "self.src.mesh == self.dst.mesh",
    ),
    Mutant(
        "an array that was lent is taken for a private one",
        REDISTRIBUTION,
        "Redistribution._run",
        "any(out is lent for out in outs)",
        "False",
    ),
    Mutant(
        "a load goes to the sender that has most so far",
        OVERLAPS,
        "_turns",
        "(load + size, place)",
        "(load - size, place)",
    ),
    Mutant(
        "a chunk of addends is larger than the buffer that it comes into",
        STREAMS,
        "Stream.__init__",
        "min(limit, self.chunk)",
        "limit",
    ),
    Mutant(
        "of each range the first index is moved",
        INDEX_RANGES,
        "segments",
        "(length, 1, 1)",
        "(1, 1, 1)",
    ),
    Mutant(
        "replicas on other ranks are each sent all of their tile",
        SPREAD,
        "parts_of",
        "plan.types[1]",
        "None",
    ),
    Mutant(
        "a part is put at its place among the parts",
        INDEX_RANGES,
        "IndexRanges.placed",
        "IndexRanges(starts, starts + lengths, there)",
        "IndexRanges(starts, starts + lengths, starts)",
    ),
    Mutant(
        "the part of a rank that holds its tile stays there",
        SPREAD,
        "Spread.__init__",
        "crossing += search.overlaps(Holders(known), Holders(second), *shapes)",
        "",
    ),
    Mutant(
        "a rank gathers what it holds",
        SPREAD,
        "receives_once",
        "_shared(box, whole) in (_shared(box, part), _size(whole))",
        "True",
    ),
    Mutant(
        "a call is done again on the tiles of another",
        REPEATED_CALL,
        "RepeatedCall.__call__",
        "self._tile() is not tile or self._out() is not out or self._stale",
        "self._stale",
    ),
    Mutant(
        "messages that were released are started again",
        REPEATED_CALL,
        "RepeatedCall._stale",
        "self._messages.under_way or self._messages.requests is not self._requests",
        "self._messages.under_way",
    ),
    Mutant(
        "a call done again keeps its tags after a fault",
        REPEATED_CALL,
        "RepeatedCall.__call__",
        "faults.raised or faults.known is not None or faults.cleared != self._cleared",
        "False",
    ),
    Mutant(
        "a repeated call takes arrays for what they were",
        REPEATED_CALL,
        "RepeatedCall.__call__",
        "self._looks and self._looks != [_look(tile), _look(out)]",
        "False",
    ),
    Mutant(
        "a call that is a meeting is repeated without",
        REDISTRIBUTION,
        "Redistribution.__call__",
        'self.fused and self._check != "all" and self._at_once()',
        "self._at_once()",
    ),
    Mutant(
        "runs are packed for ranks that share a processor",
        COMMUNICATORS,
        "Private.packs",
        'self.crowded or MPI.get_vendor()[0] == "MPICH"',
        'MPI.get_vendor()[0] == "MPICH"',
    ),
    Mutant(
        "a repeated call that is interrupted forgets what it started",
        REPEATED_CALL,
        "RepeatedCall._run",
        "not listed",
        "False",
    ),
    Mutant(
        "a call after an error does not wait for a meeting that a started one is in",
        CALLS,
        "settle_meetings",
        "watch.private.faults.unsettled()",
        "False",
    ),
    Mutant(
        "the private communicator outlives the program's",
        COMMUNICATORS,
        "_keyval",
        "slot.private = None",
        "pass",
    ),
)
