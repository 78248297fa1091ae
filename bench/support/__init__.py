"""What measurements share: trades, segments, senders, clocks and figures."""
