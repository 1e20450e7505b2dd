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
        "if places != self._bound[0]:",
        "if not self._bound[0]:",
    ),
    Mutant(
        "word that a piece was copied goes out before the copy",
        EXCHANGE,
        """                _copy(stream.pieces, sources[0], near)
                told.append((self.link.comm.Isend(EMPTY, stream.peer, self.link.tag), stream.peer))
""",
        """                told.append((self.link.comm.Isend(EMPTY, stream.peer, self.link.tag), stream.peer))
                _copy(stream.pieces, sources[0], near)
""",
    ),
    Mutant(
        "a call with a shared result does not wait for the copies of others",
        EXCHANGE,
        "            *((comm.Irecv(EMPTY, peer, tag), peer) for peer in self.awaited),\n",
        "",
    ),
    Mutant(
        "what a rank holds it fetches from others",
        PIECES,
        "            if size and receiver in ranks:\n",
        "            if size and receiver == ranks[0]:\n",
    ),
    Mutant(
        "the first of the ranks that hold a box sends it to all",
        PIECES,
        "load[sender] -= size",
        "load[sender] += 0",
    ),
    Mutant(
        "what two tiles share begins where the run of the first does",
        RUNS,
        "starts = np.maximum(a.starts[at_a], b.starts[at_b])",
        "starts = a.starts[at_a]",
    ),
    Mutant(
        "places that fill whole rows are evenly nested",
        RUNS,
        "if left or not all(",
        "if left and not all(",
    ),
    Mutant(
        "the rest of a piece that is no whole slab stays behind",
        TRANSPORT,
        "for low in range(0, shape[axis], step):",
        "for low in range(0, shape[axis] - step + 1, step):",
    ),
    Mutant(
        "a chunk is taken for complete with the first of its messages",
        TRANSPORT,
        "if not left[number, slot]:",
        "if left[number, slot] >= 0:",
    ),
    Mutant(
        "a datatype of several levels has the strides of the innermost",
        TRANSPORT,
        "inner, made = made, made.Create_hvector(count, 1, stride)",
        "inner, made = made, made.Create_vector(count, 1, 1)",
    ),
    Mutant(
        "the first addend is reduced with what was there",
        REDUCTION,
        "                if at:\n",
        "                if at >= 0:\n",
    ),
    Mutant(
        "own addends are cut by their own buffer",
        REDUCTION,
        "                stream.chunk = put.chunk\n",
        "",
    ),
    Mutant(
        "a reduced array is exchanged among all who want it, whatever their addends",
        REDUCTION,
        "of_source, of_target = before.groups(kept), after.groups(kept)",
        "of_source, of_target = before.groups(()), after.groups(())",
    ),
    Mutant(
        "balanced tiles are those of ceil",
        LAYOUTS,
        "return start, start + step + (number < more)",
        "return start, start + step + (more > 0)",
    ),
    Mutant(
        "ranks agree whatever they were given",
        AGREEMENT,
        "if least != most:",
        "if least > most:",
    ),
    Mutant(
        "an error on one rank is no error",
        AGREEMENT,
        "comm.size if error is None else comm.rank]",
        "comm.size]",
    ),
    Mutant(
        "ranks with different timeouts wait in different collectives",
        AGREEMENT,
        "if self.agreed and self.timeout is None",
        "if self.timeout is None",
    ),
    Mutant(
        "a call may overwrite its own source",
        REDISTRIBUTION,
        "if any(t is not None and np.may_share_memory(out, t) for t in tiles):",
        "if any(t is out for t in tiles):",
    ),
    Mutant(
        "a start agrees with a call",
        REDISTRIBUTION,
        'begun = "a call" if blocking else "a start"',
        'begun = "a call"',
    ),
)
