"""Durable storage: the LMDB journal, the SQLite archive, the persister between them, and recovery.

Bars on disk carry their symbol's name, never a slot: slots are dealt anew with every segment.
"""
