"""``python -m stemstream``."""

from stemstream.cli import main

main()
