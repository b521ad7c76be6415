"""One run, from its checked configuration to its report."""
