"""The work queue and its workers; they know ports, not Kopf and not the Kubernetes client."""
