"""The change log of a collection: what is accepted, in which order, before any index sees it."""
