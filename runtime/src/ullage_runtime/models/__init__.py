"""Models: sources and cache, generations, and the pool that brings the desired state about."""
