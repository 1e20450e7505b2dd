"""Plans as the programs of others: Shardy, StableHLO, jax.lax."""
