"""``python -m apsber_bluesky.session NAME``: the processes of a session, and of a queue."""

import sys

if sys.argv[1:] == ["worker"]:
    from apsber_bluesky.session._worker_service import main
elif sys.argv[1:] == ["catalog"]:
    from apsber_bluesky.session._catalog_service import main
elif sys.argv[1:] == ["guard"]:
    from apsber_bluesky.session._guard_service import main
elif sys.argv[1:] == ["queue-manager"]:
    from apsber_bluesky.session._queue_service import main
elif sys.argv[1:] == ["queue-redis"]:
    from apsber_bluesky.session._queue_redis import main
else:
    raise SystemExit(
        "run 'worker', 'catalog', 'guard', 'queue-manager' or 'queue-redis', not"
        f" {' '.join(sys.argv[1:])!r}"
    )

raise SystemExit(main())
