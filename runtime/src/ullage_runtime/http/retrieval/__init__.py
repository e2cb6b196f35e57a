"""Collections over HTTP: points, documents, searches and operations."""
