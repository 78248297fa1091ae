"""What one would write without klshm: the plain twin of each measurement."""
