"""``python -m planish.cli``."""

from planish.cli import main

if __name__ == "__main__":
    main()
