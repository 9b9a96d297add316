"""One module for each thing that catalign takes from outside."""
