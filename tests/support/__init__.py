"""Real parts that the tests of several packages share: processes, exchange, engine, segments, servers."""
