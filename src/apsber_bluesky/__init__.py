"""apsber_bluesky: from the first photon to the DOI.

Five loosely coupled stages share one Bluesky run uid: acquisition (``plans``, ``devices``),
``streaming``, ``processing``, ``analysis`` and ``storage``. ``pipeline`` joins them, ``session``
builds a working beamline session from one YAML profile::

    from apsber_bluesky.session import start
    s = start("simulated")
"""

from apsber_bluesky._version import __version__

__all__ = ["__version__"]
