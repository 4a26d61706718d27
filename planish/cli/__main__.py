"""``python -m planish.cli``."""

from planish.cli import main

main()
