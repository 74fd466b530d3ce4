"""Follow a run while it is being taken, or read one that is over in the same way."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from apsber_bluesky.core import InputError, ServiceError
from apsber_bluesky.storage._catalog_client import is_unreachable
from apsber_bluesky.storage._catalog_search import find_runs

logger = logging.getLogger(__name__)

#: Frames are looked for this often [s] where nobody tells of new ones, and in case a word is lost.
_LOOK_AGAIN_S: Final = 1.0
_MAXIMUM_MESSAGE_BYTES: Final = 64_000_000
_NOT_FOUND: Final = 404

OnFrames = Callable[[int, NDArray[Any]], None]


class Follower:
    """Made by `follow`: calls back from a thread of its own until the run is over.

    Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        run: Any,
        catalog: Any,
        on_frames: OnFrames,
        stream: str,
        key: str | None,
        block_bytes: int,
    ) -> None:
        self._run = run
        self._catalog = catalog
        self._newest_s = -math.inf if catalog is None else _newest(catalog)[0]
        self._on_frames = on_frames
        self._stream = stream
        self._key = key
        self._block_bytes = block_bytes
        self._num_frames = 0
        self._error: BaseException | None = None
        self._news = threading.Event()
        self._is_over = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._guard, name="follow-run", daemon=True)
        self._thread.start()

    @property
    def run(self) -> Any:
        """The run; None while the next one has not begun."""
        return self._run

    @property
    def num_frames(self) -> int:
        """Number of frames that were handed over."""
        return self._num_frames

    def wait(self, timeout_s: float = 600.0) -> int:
        """Wait until the run is over and all its frames were handed over.

        Parameters
        ----------
        timeout_s : float
            How long to wait [s].

        Returns
        -------
        int
            Number of frames.

        Raises
        ------
        ServiceError
            If it takes longer, or the catalogue went away.
        Exception
            What `on_frames` raised; nothing was handed over after that.
        """
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise ServiceError(
                f"the run was not over after {timeout_s:g} s; {self._num_frames} frames so far"
            )
        if self._error is not None:
            raise self._error
        return self._num_frames

    def close(self) -> None:
        """Stop following; doing so twice is harmless."""
        self._closing.set()
        self._news.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _guard(self) -> None:
        try:
            self._follow()
        except Exception as error:
            logger.exception("following the run ended")
            where = "the catalogue went away while a run was followed"
            self._error = ServiceError(f"{where}: {error}") if is_unreachable(error) else error

    def _follow(self) -> None:
        from tiled.client.utils import ClientError

        while self._run is None and not self._closing.wait(_LOOK_AGAIN_S / 2):
            began_s, newest = _newest(self._catalog)
            if began_s > self._newest_s:
                self._run = newest
        while not self._closing.is_set():
            try:
                self._follow_node()
            except (KeyError, ClientError) as error:
                # A run of which the catalogue had only a part is written again from its beginning.
                if isinstance(error, ClientError) and error.response.status_code != _NOT_FOUND:
                    raise
                self._closing.wait(_LOOK_AGAIN_S)
            else:
                return

    def _follow_node(self) -> None:
        node = self._wait_for_node()
        if node is None:
            return
        subscription = node.subscribe()
        # Only weak references are kept of these, and bound methods live as long as this object.
        subscription.new_data.add_callback(self._on_news)
        subscription.stream_closed.add_callback(self._on_closed)
        listener = threading.Thread(target=_listen, args=(subscription,), daemon=True)
        listener.start()
        try:
            while not self._closing.is_set():
                # Asked before reading, so that the last frames are not missed.
                is_over = self._is_over.is_set() or self._has_stopped()
                self._news.clear()
                self._read(node)
                if is_over:
                    return
                self._news.wait(_LOOK_AGAIN_S)
        finally:
            subscription.disconnect()
            listener.join()

    def _wait_for_node(self) -> Any:
        """The frames' array; it is there when the first of them are."""
        while not self._closing.is_set():
            is_over = self._has_stopped()
            if (node := self._find_node()) is not None:
                return node
            if is_over:
                return None
            self._closing.wait(_LOOK_AGAIN_S / 4)
        return None

    def _has_stopped(self) -> bool:
        return bool(self._run.refresh().metadata.get("stop"))

    def _find_node(self) -> Any:
        if self._stream not in self._run:
            return None
        stream = self._run[self._stream]
        keys = list(stream) if self._key is None else [self._key]
        for key in keys:
            if key in stream and len(getattr(stream[key], "shape", ())) > 2:
                return stream[key]
        return None

    def _on_news(self, _update: Any) -> None:
        self._news.set()

    def _on_closed(self, _subscription: Any) -> None:
        self._is_over.set()
        self._news.set()

    def _read(self, node: Any) -> None:
        """Hand over what is there and was not yet."""
        node.refresh()
        total, frame_bytes = node.shape[0], int(np.prod(node.shape[1:])) * node.dtype.itemsize
        block = max(1, self._block_bytes // max(1, frame_bytes))
        while self._num_frames < total and not self._closing.is_set():
            first, stop = self._num_frames, min(total, self._num_frames + block)
            frames = np.asarray(node[first:stop])
            self._num_frames = stop
            self._on_frames(first, frames)


def _newest(catalog: Any) -> tuple[float, Any]:
    """When the newest run began, and the run."""
    for run in find_runs(catalog, limit=1):
        return run.metadata["start"]["time"], run
    return -math.inf, None


def _listen(subscription: Any) -> None:
    """Listen until the array is closed; without this, new frames are looked for."""
    try:
        subscription.start(max_size=_MAXIMUM_MESSAGE_BYTES)
    except Exception:
        logger.exception("the catalogue does not tell of new frames")


def follow(
    run: Any,
    on_frames: OnFrames,
    *,
    stream: str = "primary",
    key: str | None = None,
    block_megabytes: float = 32.0,
) -> Follower:
    """Get the frames of a run as they come, each once and in order.

    The catalogue tells when frames are there (a Tiled subscription), and just these are fetched.
    Frames that were there before are handed over first, so a run that is over is read from its
    beginning to its end.

    Parameters
    ----------
    run : bluesky_tiled_plugins.BlueskyRun or container
        The run, as ``catalog[uid]`` or `find_runs` give it; or the catalogue, and then the next run
        that begins.
    on_frames : callable
        Called with the number of the first frame, and the frames, shape ``(n, rows, columns)``, in
        the detector's dtype. It is called from another thread, one call at a time; an exception
        ends following and is raised by `Follower.wait`.
    stream : str
        ``primary``, ``flats`` or ``darks``.
    key : str, optional
        Name of the frames, such as ``camera_image``; those of the first detector when not given.
    block_megabytes : float
        How much is fetched and handed over at once, at most [10^6 byte]; one frame at least.

    Returns
    -------
    Follower
        `Follower.wait` waits for the end of the run, `Follower.close` stops following.

    Raises
    ------
    InputError
        If an argument is wrong.
    """
    if not callable(on_frames):
        raise InputError(f"on_frames is {on_frames!r}; give a function of (first, frames)")
    if not block_megabytes > 0:
        raise InputError(f"block_megabytes is {block_megabytes!r}; give a positive number")
    is_run = "start" in getattr(run, "metadata", {})
    catalog = None if is_run else run
    run = run if is_run else None
    return Follower(run, catalog, on_frames, stream, key, int(block_megabytes * 1e6))
