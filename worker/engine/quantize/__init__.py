"""Integers for weights and activations, placed where the target runtime computes in integers."""
