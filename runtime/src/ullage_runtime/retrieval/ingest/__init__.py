"""From documents to points: kept, cut into chunks, embedded and written."""
