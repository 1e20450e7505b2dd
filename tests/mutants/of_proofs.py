"""Bugs in the formulas of the proofs: a claim that does not hold, or one that says nothing."""

from tests.mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        "equal numbers have equal digits, whatever the range of the digits",
        "proofs/digits.py",
        "    given = bounded((p, size), (q, size), (m, k), (n, k))\n    same",
        "    given = bounded((p, size), (q, size), (m, k + 1), (n, k))\n    same",
    ),
    Mutant(
        "the last digit is a quotient",
        "proofs/digits.py",
        "return Goal([p >= 0, *bounded((m, k))], (p * k + m) % k == m)",
        "return Goal([p >= 0, *bounded((m, k))], (p * k + m) / k == m)",
    ),
    Mutant(
        "a gather puts its parts at the major end",
        "proofs/rules.py",
        'then b is local."""\n    o, s = z3.Ints("o s")\n'
        '    program, after = write("program", o, H, k, L), write(',
        'then b is local."""\n    o, s = z3.Ints("o s")\n'
        '    program, after = write("program", o, k, H, L), write(',
    ),
    Mutant(
        "a gather from the target would shrink it",
        "proofs/peak.py",
        "    given = [*SIZES, s >= 1, g >= 1, src == s * t, dst == g * t]\n",
        "    given = [*SIZES, s >= 1, g >= 1, src == s * t, dst * g == t]\n",
    ),
    Mutant(
        "any tile of the normal form is within the smaller end",
        "proofs/peak.py",
        "    return Goal(given, t <= larger(src, dst))\n",
        "    return Goal(given, t <= smaller(src, dst))\n",
    ),
    Mutant(
        "a permute and an all_to_all receive less than the bound",
        "proofs/volume.py",
        "    return Goal(SIZES, z3.And(total == T + t - t / K, total < 2 * T))\n",
        "    return Goal(SIZES, z3.And(total == T + t - t / K, total < T))\n",
    ),
    Mutant(
        "a gathered digit divides the own part by its size",
        "proofs/bound.py",
        "law(T * k, own, Q * k, agree)",
        "law(T * k, own, Q, agree)",
    ),
    Mutant(
        "after a permute the last digit of a path is on its target too",
        "proofs/chains.py",
        "    return Goal([*CHAIN, *permuted()], after(j) == z3.If(j < m, j, 0))\n",
        "    return Goal([*CHAIN, *permuted()], after(j) == j)\n",
    ),
    Mutant(
        "a slice passes a swap of tops without restoring the order, in the proof",
        "proofs/rewriting.py",
        '[cut("i", b, q), swap_within("i"), swap_tops("i", "j"), swap_within("i")],',
        '[cut("i", b, q), swap_within("i"), swap_tops("i", "j")],',
    ),
    Mutant(
        "rewriting may add four permutes",
        "proofs/rewriting.py",
        "    given = [0 <= copies, copies <= 3, unit >= 1,",
        "    given = [0 <= copies, copies <= 4, unit >= 1,",
    ),
    Mutant(
        "the transpose of a slice spreads the other parts",
        "proofs/transposition.py",
        "    spread = x * z3.If(m == u, part, 0)\n",
        "    spread = x * z3.If(m != u, part, 0)\n",
    ),
    Mutant(
        "hypotheses that nothing meets prove the claim",
        "proofs/transposition.py",
        "    return Goal([role >= 0, role <= 2], dual(dual(role)) == role)\n",
        "    return Goal([role >= 0, role <= 2, role > 2], dual(dual(role)) == role)\n",
    ),
    Mutant(
        "vacuous proofs count",
        "proofs/harness.py",
        'if outcome.kind == "proved" and decide(given, z3.BoolVal(False)).kind != "counter-model":',
        'if outcome.kind == "proved" and decide(given, z3.BoolVal(False)).kind == "unknown":',
    ),
    Mutant(
        "a file of obligations that is left out is no fault",
        "proofs/__main__.py",
        "for name in sorted(files - {*families})),",
        "for name in sorted({*families} - {*families})),",
    ),
    Mutant(
        "the proofs call a reduce_scatter's digit free",
        "proofs/transposition.py",
        '"reduce_scatter": (PARTIAL, OWNER),',
        '"reduce_scatter": (FREE, OWNER),',
    ),
)
