"""One worker: a slice of the symbols, from the socket to shared memory, on one core."""
