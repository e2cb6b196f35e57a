"""The runtime's pure core: domain types, errors and state machines; no I/O, no clock."""
