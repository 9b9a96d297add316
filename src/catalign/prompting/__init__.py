"""From item indices to token sequences."""
