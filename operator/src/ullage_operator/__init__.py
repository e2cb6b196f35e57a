"""Ullage's Kubernetes operator: custom resources in, pools of runtime pods out, status back."""
