"""Benchmarks: programs run as `python -m bench.NAME`, which print Markdown and write JSON."""
