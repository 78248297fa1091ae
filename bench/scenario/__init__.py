"""Several processes, as in life: sockets, workers, readers, whole engines."""
