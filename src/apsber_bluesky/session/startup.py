"""Everything for a beamline session: ``from apsber_bluesky.session.startup import *``.

In IPython, a notebook, a script or queueserver this starts the session of the profile that the
environment variable ``APSBER_PROFILE`` names (``simulated`` if it is not set), and gives
``RE, sd, cat, bec, peaks, oregistry, bp, bps``, the devices and the plans by their names.
"""

from __future__ import annotations

from apsber_bluesky.session._interactive import begin as _begin

_names = _begin()
globals().update(_names)

__all__ = list(_names)
