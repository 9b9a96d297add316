"""Recommendations for everybody: a file of people in, a folder of part files out, each part exactly once."""
