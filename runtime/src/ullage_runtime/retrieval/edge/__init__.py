"""The embedded store: Qdrant's own engine, behind the part of Qdrant's REST API that we use.

The engine holds the GIL in every call and allows one owner of a shard, so a process of its own
holds the shards of a volume. Everybody else speaks REST with it, as with any Qdrant.
"""
