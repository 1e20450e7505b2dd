"""Meshes, array types, their text, and the digits that two types share.

From the bottom up:

digits, mesh        parts of axes and dimensions, and their algebra; devices in a grid
dtypes, reduction   element types; what combines the addends of a partial sum
uneven              the rules that cut a dimension into blocks of unequal size
notation            the text of a type, read and written
canonical           the one form of each layout, and what a layout must obey; uneven_form likewise
array_type          a type: read this one first
padding             an uneven type as the corner of an even one
refinement          the common digits of two types, on which all planning rests
overlap             what a device has on both sides, from which bounds follow
equivalence         types on different meshes
tile                what one device holds, cut into pieces
named_sharding      types as callers give them
"""
