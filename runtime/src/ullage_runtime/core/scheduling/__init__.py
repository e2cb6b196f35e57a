"""Continuous batching as a pure machine: who computes what in the next step, and in which cells."""
