"""A live collection brought to another model, layout or chunking, while it is read and written."""
