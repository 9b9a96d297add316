"""One self-contained page about runs that answered the same windows."""
