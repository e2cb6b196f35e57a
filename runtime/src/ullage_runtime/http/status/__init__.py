"""The live view of a pod over a WebSocket: what is so, then what changes."""
