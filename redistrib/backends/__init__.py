"""What executes plans: the numpy simulator, mpi, jax."""
