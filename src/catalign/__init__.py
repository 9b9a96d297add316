"""Fine-tune a language model to recommend from your own catalogue."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["Recommender", "__version__"]


def __getattr__(name: str) -> Any:
    """Import `Recommender` when it is asked for: the command line starts without loading torch."""
    if name == "Recommender":
        from catalign.recommender import Recommender

        return Recommender
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
