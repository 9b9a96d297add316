"""Metrics, intervals, floor rows, predictions."""
