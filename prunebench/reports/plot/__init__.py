"""Plots of runs, one column of a paper wide; the one room that draws with matplotlib."""
