"""The worker of a reindex: a process that drives, paces and judges, and holds no data."""
