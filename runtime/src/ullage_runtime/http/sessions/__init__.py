"""Sessions over HTTP: turns, searches that build on them, and forgetting."""
