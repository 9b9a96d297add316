"""Losses as pure functions of tensors, one formula in one place."""
