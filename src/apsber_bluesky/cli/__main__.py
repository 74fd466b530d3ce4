"""``python -m apsber_bluesky.cli`` is ``apsber``."""

from apsber_bluesky.cli import main

main()
