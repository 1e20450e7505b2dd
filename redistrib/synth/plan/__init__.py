"""A plan and its parts.

From the bottom up:

fields, link_data       values of JSON objects and TOML tables, read strictly
roles, tables           what the digits of a type do while a rule rewrites it; routing by device
collectives             one class for each, with its rule, traffic and transpose: read this first
replicas, crossing, routing, blocks   an exchange: who sends what to whom, and how much
links, by_level, profile, price       what a step takes on a machine
bounds                  what some device receives under any plan
priced_steps, json, transpose, data   a `Plan`
pieces, tile_program    a plan as operations on one device's tile, which every backend runs
"""
