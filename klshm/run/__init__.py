"""The launcher: starts, pins, watches, restarts and stops the processes of one engine."""
