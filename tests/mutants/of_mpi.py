"""Bugs in the mpi backend: what is sent, when it may be read, and what ranks agree on."""

from tests.mutants.mutant import Mutant

AGREEMENT = "redistrib/backends/mpi/agreement.py"
EXCHANGE = "redistrib/backends/mpi/exchange.py"
LAYOUTS = "redistrib/backends/mpi/layouts.py"
PIECES = "redistrib/backends/mpi/pieces.py"
REDISTRIBUTION = "redistrib/backends/mpi/redistribution.py"
REDUCTION = "redistrib/backends/mpi/reduction.py"
RUNS = "redistrib/backends/mpi/runs.py"
TRANSPORT = "redistrib/backends/mpi/transport.py"

MUTANTS = (
    Mutant(
        "messages are kept for the tiles of any later call",
        EXCHANGE,
        "Exchange._kept",
        "places != self._bound[0]",
        "not self._bound[0]",
    ),
    Mutant(
        "word that a piece was copied goes out before the copy",
        EXCHANGE,
        "Exchange.run.copy",
        """
_copy(stream.pieces, sources[0], near)
told.append((self.link.comm.Isend(EMPTY, stream.peer, self.link.tag), stream.peer))
""",
        """
told.append((self.link.comm.Isend(EMPTY, stream.peer, self.link.tag), stream.peer))
_copy(stream.pieces, sources[0], near)
""",
    ),
    Mutant(
        "a call with a shared result does not wait for the copies of others",
        EXCHANGE,
        "Exchange._start",
        """
return [
    *((comm.Irecv(EMPTY, peer, tag), peer) for peer in self.awaited),
    *((comm.Irecv(message, peer, tag), peer) for message, peer in receives),
    *((comm.Isend(message, peer, tag), peer) for message, peer in sends),
]
""",
        """
return [
    *((comm.Irecv(message, peer, tag), peer) for message, peer in receives),
    *((comm.Isend(message, peer, tag), peer) for message, peer in sends),
]
""",
    ),
    Mutant(
        "what a rank holds it fetches from others",
        PIECES,
        "Router._routes",
        "receiver in ranks",
        "receiver == ranks[0]",
    ),
    Mutant(
        "the first of the ranks that hold a box sends it to all",
        PIECES,
        "Router._routes",
        "load[sender] -= size",
        "load[sender] += 0",
    ),
    Mutant(
        "what two tiles share begins where the run of the first does",
        RUNS,
        "common",
        "np.maximum(a.starts[at_a], b.starts[at_b])",
        "a.starts[at_a]",
    ),
    Mutant(
        "places that fill whole rows are evenly nested",
        RUNS,
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
        TRANSPORT,
        "cut",
        "range(0, shape[axis], step)",
        "range(0, shape[axis] - step + 1, step)",
    ),
    Mutant(
        "a chunk is taken for complete with the first of its messages",
        TRANSPORT,
        "transfer",
        "not left[number, slot]",
        "left[number, slot] >= 0",
    ),
    Mutant(
        "a datatype of several levels has the strides of the innermost",
        TRANSPORT,
        "_strided",
        "made.Create_hvector(count, 1, stride)",
        "made.Create_vector(count, 1, 1)",
    ),
    Mutant(
        "the first addend is reduced with what was there",
        REDUCTION,
        "_Lane.finish",
        """
if at:
    ...
else:
    ...
""",
        """
if at >= 0:
    ...
else:
    ...
""",
    ),
    Mutant(
        "own addends are cut by their own buffer",
        REDUCTION,
        "_Lane.__init__",
        "stream.chunk = put.chunk",
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
        "balanced tiles are those of ceil",
        LAYOUTS,
        "UnevenType.block",
        "number < more",
        "more > 0",
    ),
    Mutant(
        "ranks agree whatever they were given",
        AGREEMENT,
        "Watch.agree",
        "least != most",
        "least > most",
    ),
    Mutant(
        "an error on one rank is no error",
        AGREEMENT,
        "Watch.agree",
        "comm.size if error is None else comm.rank",
        "comm.size",
    ),
    Mutant(
        "ranks with different timeouts wait in different collectives",
        AGREEMENT,
        "Watch.agree",
        "self.agreed and self.timeout is None and not self.private.crowded",
        "self.timeout is None and not self.private.crowded",
    ),
    Mutant(
        "a call may overwrite its own source",
        REDISTRIBUTION,
        "Redistribution._results",
        "t is not None and np.may_share_memory(out, t)",
        "t is out",
    ),
    Mutant(
        "a start agrees with a call",
        REDISTRIBUTION,
        "Redistribution._run",
        '"a call" if blocking else "a start"',
        '"a call"',
    ),
)
