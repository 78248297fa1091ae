"""The engine's own arithmetic: pure, no input or output, no clock; time comes with the events."""
