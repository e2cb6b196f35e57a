"""The custom resource kinds."""
