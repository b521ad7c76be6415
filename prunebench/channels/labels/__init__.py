"""The labelled forward: which channel every element of every tensor came from."""
