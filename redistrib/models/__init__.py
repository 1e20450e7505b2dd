"""Whole models: how the arrays of one program are made from those of another."""
