"""Mutated files against every gate: in this process, guided by coverage, and over HTTP."""
