"""What all tests share."""

from pathlib import Path

SHARED = Path(__file__).parents[2] / "shared"
"""Real data and reference values beside the project; absent on other machines."""
