"""Reindex jobs over HTTP: for clients, and for the workers that drive them."""
