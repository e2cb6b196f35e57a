"""Conversion: other files become GGUF files, or smaller ones, which are held against the first."""
