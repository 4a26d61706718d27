"""Sixteen-bit floats: which values fit, and the graph that computes in them."""
