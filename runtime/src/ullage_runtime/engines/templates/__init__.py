"""Chat templates: Jinja text from a model's file, rendered by a child that can be killed."""
