"""Other aggregators on the same trades, each in a process and, where needed, an environment of its own."""
