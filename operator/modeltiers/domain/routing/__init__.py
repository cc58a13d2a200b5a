"""Which tier answers, and whether its answer is good enough: the same pure functions for router, CLI and tests."""
