"""Engines: one protocol, one package per library, and the worker process they run in."""
