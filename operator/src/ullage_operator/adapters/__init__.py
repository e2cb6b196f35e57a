"""The outside world behind our ports: Kubernetes, runtime pods, clock, events, metrics."""
