"""Sessions: what was asked and shown before, so that the next search may build on it."""
