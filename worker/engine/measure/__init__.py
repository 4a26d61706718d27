"""Figures: size, work, accuracy, fidelity, latency, memory, and whether a file still opens."""
