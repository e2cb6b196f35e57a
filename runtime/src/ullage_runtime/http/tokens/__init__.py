"""Tokens: what a model's vocabulary makes of a text, and of tokens."""
