"""Where vectors are kept: one port, and Qdrant behind it."""
