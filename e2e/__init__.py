"""End-to-end proof: a real local Kubernetes, and scenarios that run on any cluster."""
