"""Taking channels out of a network, and checking that nothing else changed."""
