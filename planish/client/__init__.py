"""The client: flows without I/O, and two thin drivers over httpx."""
