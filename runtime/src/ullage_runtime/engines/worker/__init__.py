"""Engine workers: one process per loaded model, its wire, and the proxy that stands for it."""
