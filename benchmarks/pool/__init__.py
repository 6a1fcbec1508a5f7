"""Measures the pool on real vLLM: `python -m benchmarks.pool`."""
