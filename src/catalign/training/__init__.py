"""One trainer and the run folder it leaves."""
