"""The two documents that operator and pods exchange."""
