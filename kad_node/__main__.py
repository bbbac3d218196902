"""``python -m kad_node``."""

from kad_node.cli import main

main()
