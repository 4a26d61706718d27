"""A look at uploaded bytes before anything parses them: pure Python, header-sized work."""
