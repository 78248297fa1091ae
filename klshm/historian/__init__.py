"""The one process that talks REST: exchange clock, listings, backfill and repair.

It writes the symbols table, the exchange clock, the workers' inboxes and its own log to the
persister; nothing else.
"""
