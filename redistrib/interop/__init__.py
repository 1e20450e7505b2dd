"""Layouts of other projects as text, to types and back; plans as programs of other projects.

A module per notation, with a function that reads and one that writes:

    parse_x(text, mesh, shape, dtype) -> ArrayType      TypeSyntaxError with the column, LayoutError
    format_x(type) -> str                               LayoutError where the notation has no word

jax_text     PartitionSpec, NamedSharding, AbstractMesh and the type of an array (aval)
hlo          HLO shardings: device lists, iotas, and meshes with axes
shardy       #sdy.sharding and meshes
dtensor      placements, strided shards and shard orders
alpa, colossalai, scalapack

plan_to_sdy, plan_to_stablehlo and plan_to_jax write a plan; hlo_traffic reads what a compiled
program moves. Nothing here imports a framework.
"""
