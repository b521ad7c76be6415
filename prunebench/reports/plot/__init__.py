"""Draws plots of runs, one column of a paper wide; the only package that uses matplotlib."""
