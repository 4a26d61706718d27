"""Training in many processes: what they are given, how they start, and how they work together."""
