"""Kopf's decorators and nothing else: an event becomes a key, the key goes into the queue."""
