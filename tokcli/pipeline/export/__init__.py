"""A cache in the formats of others: of data loaders, and of serving engines. Read ``run`` first.

What an engine can do with a cache is decided in ``capability``, before anything is written.
"""
