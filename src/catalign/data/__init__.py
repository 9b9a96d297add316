"""Interactions and items in, windows of item indices out."""
