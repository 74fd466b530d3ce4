"""``python -m apsber_bluesky.streaming``: the receiver process."""

from apsber_bluesky.streaming._service import main

raise SystemExit(main())
