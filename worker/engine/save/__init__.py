"""Artifacts: what the engine writes for others to run."""
