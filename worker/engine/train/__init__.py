"""Training: one loop for every pass that trains."""
