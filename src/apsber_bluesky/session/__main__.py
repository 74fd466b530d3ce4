"""``python -m apsber_bluesky.session worker|catalog``: the session's own processes."""

import sys

if sys.argv[1:] == ["worker"]:
    from apsber_bluesky.session._worker_service import main
elif sys.argv[1:] == ["catalog"]:
    from apsber_bluesky.session._catalog_service import main
else:
    raise SystemExit(f"run 'worker' or 'catalog', not {' '.join(sys.argv[1:])!r}")

raise SystemExit(main())
