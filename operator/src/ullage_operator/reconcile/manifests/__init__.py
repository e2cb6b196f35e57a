"""Builders: one per kind of object, each returning the plain mapping the API server receives."""
