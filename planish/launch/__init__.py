"""Starts the service's processes: API, worker and embedded Redis, tied to whoever started them."""
