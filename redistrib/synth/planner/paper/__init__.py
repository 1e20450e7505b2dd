"""The paper's own route: its types, its calculus, its normal form and its search."""
