"""A suite of data sets, methods and seeds, run as the commands that a person would type, and its leaderboard."""
