"""The pod's HTTP surfaces, one package each: router, schema, service."""
