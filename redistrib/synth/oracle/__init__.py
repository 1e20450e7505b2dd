"""What redistributions cost, for those who choose layouts: singly, in batches, and with holes."""

from redistrib.synth.oracle.completion import complete
from redistrib.synth.oracle.matrix import CostMatrix
from redistrib.synth.oracle.oracle import Oracle, Stats, cost_matrix

__all__ = ["CostMatrix", "Oracle", "Stats", "complete", "cost_matrix"]
