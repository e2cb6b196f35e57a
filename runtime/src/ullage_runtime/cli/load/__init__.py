"""A load generator: what to ask, when, of whom, and what came of it."""
