"""The language model: loading, adapters, the embedded model, the prefix forest."""
