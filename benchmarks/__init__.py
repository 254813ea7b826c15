"""The library against the same work written by hand: ``python -m benchmarks``."""
