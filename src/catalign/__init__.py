"""Fine-tune a language model to recommend from your own catalogue."""

__version__ = "0.1.0"
