"""Every accepted format in, one canonical form out."""
