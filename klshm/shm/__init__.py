"""Shared memory: its layout, its segment, and the protocols that make it safe to read.

The modules that readers need (`layout`, `segment`, `consumer`, `counters`) load NumPy only;
those that write (`atomics`, `exact`, `rows`, `halves`, `ring`) are compiled.
"""
