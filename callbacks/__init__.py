"""Callbacks: what listens to the document stream. A document in, one call to a lower layer."""

if __name__ != "apsber_bluesky.callbacks":
    raise ImportError(
        f"import apsber_bluesky.callbacks, not {__name__}: two copies of a callback would both"
        " listen"
    )

from apsber_bluesky.callbacks._document_forwarder import DocumentForwarder
from apsber_bluesky.callbacks._frame_dispatcher import FrameDispatcher
from apsber_bluesky.callbacks._run_watcher import RunWatcher

__all__ = ["DocumentForwarder", "FrameDispatcher", "RunWatcher"]
