"""The governor: devices, their budgets, and the ledger as a service."""
