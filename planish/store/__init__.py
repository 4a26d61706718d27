"""Jobs and bytes: write-once files are the truth, Redis is the ledger that mirrors them."""
