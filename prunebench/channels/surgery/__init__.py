"""Cuts channels out of a network (`slim`), and checks that nothing else changed (`verify`)."""
