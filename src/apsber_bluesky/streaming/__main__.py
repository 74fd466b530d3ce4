"""``python -m apsber_bluesky.streaming [decode|monitor|gateway]``: by itself, the receiver."""

import sys

_SERVICES = ("decode", "monitor", "gateway")

if sys.argv[1:] == []:
    from apsber_bluesky.streaming._service import main
elif sys.argv[1:] == ["decode"]:
    from apsber_bluesky.streaming._decode_service import main
elif sys.argv[1:] in (["monitor"], ["gateway"]):
    from apsber_bluesky.core import forgo_real_time

    # Before the import: EPICS' library decides then what its threads may do.
    forgo_real_time()
    if sys.argv[1] == "monitor":
        from apsber_bluesky.streaming._monitor_service import main
    else:
        from apsber_bluesky.streaming._gateway_service import main
else:
    raise SystemExit(f"run nothing, or {', '.join(_SERVICES)}, not {' '.join(sys.argv[1:])!r}")

raise SystemExit(main())
