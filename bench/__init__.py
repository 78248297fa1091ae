"""What klshm can do, measured beside what one would use without it: `python -m bench`."""
