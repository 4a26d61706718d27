"""One file for each pass: its parameters, their ranges, and what they need."""
