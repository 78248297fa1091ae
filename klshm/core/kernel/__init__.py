"""The compiled part of the engine, in the order data takes through it.

``intake`` (identity of trades) → ``splice`` (trades against official frames) → ``official``
(frames and REST rows) → ``closing`` (tick, settle, amend, confirm) → ``folds`` (higher
intervals) → ``rows`` (records in shared memory); ``apply`` is the one entry point.
"""
