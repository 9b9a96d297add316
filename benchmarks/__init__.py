"""Measurements that print what they find: `python -m benchmarks.NAME`."""
