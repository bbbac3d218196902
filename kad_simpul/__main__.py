"""``python -m kad_simpul``."""

from kad_simpul.cli import main

main()
