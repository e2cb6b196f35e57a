"""Reindexing as plain decisions: which way to take, what to do next, how fast, and what is so."""
