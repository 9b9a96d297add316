"""A trained run as a plain Hugging Face folder with a model card, and its way to a hub."""
