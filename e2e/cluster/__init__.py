"""A real Kubernetes on this machine, made of parts that package registries carry.

`python -m e2e.cluster up` starts one; `Cluster` is what tests use; `fixtures` are pytest's.
"""

from e2e.cluster.cluster import Cluster
from e2e.cluster.errors import ClusterError

__all__ = ["Cluster", "ClusterError"]
