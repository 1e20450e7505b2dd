"""What executes plans: simulator (numpy), mpi, jax, torch; `registry` has what each of them needs.

model_messages, model_tiles and wire are what all transports share to move whole models;
calibration makes a hardware profile of measured moves.
"""
