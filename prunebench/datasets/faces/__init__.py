"""Faces: training sets of identities, and pairs to verify."""
