"""Collections: where vectors are kept, how they are written, and how they are found again."""
