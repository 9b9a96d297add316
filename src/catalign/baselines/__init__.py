"""Baselines of other libraries, trained and evaluated on exactly our windows, in environments of their own."""
