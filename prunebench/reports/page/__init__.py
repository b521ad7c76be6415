"""A page of runs: one file that needs neither network nor server."""
