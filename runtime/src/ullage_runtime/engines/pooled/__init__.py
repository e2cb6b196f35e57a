"""Embedding and ranking, whatever engine computes: texts become tokens, tokens become batches."""
