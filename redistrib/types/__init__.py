"""Meshes, array types, their text, and the digits that two types share."""
