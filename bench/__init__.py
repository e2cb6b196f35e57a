"""Ullage side by side with other servers; `make bench` runs it."""
