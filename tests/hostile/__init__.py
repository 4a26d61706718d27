"""What strangers might send: a corpus of hostile files, and mutators that make more of them."""
