"""Texts of other projects, read and written as types and plans."""
