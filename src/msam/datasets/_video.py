"""Frames and sound of a video file, through PyAV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def middle_frames(path: Path, count: int, side: int) -> tuple[np.ndarray, list[str]]:
    """The frame in the middle of each of `count` equal parts of a short video.

    Returns:
        (count, 3, side, side) uint8, and ["damaged"] if some of the file could not be decoded.

    Raises:
        ValueError: the file cannot be read or has no frame.
    """
    with _opened(path) as container:
        frames, changed = _all_frames(path, container)
        chosen = [frames[int((k + 0.5) / count * len(frames))] for k in range(count)]
        return _pixels(chosen, side), changed


def frames_at(path: Path, times: Sequence[float], side: int) -> tuple[np.ndarray, list[str]]:
    """The first frame at or after each of the ascending times in s, the last frame behind the end.

    Returns and raises as `middle_frames`.
    """
    chosen: list[Any] = []
    last: Any = None
    changed: list[str] = []
    with _opened(path) as container:
        for frame in _frames(path, container, changed):
            last = frame
            while len(chosen) < len(times) and frame.time is not None and frame.time >= times[len(chosen)]:
                chosen.append(frame)
            if len(chosen) == len(times):
                break
        if last is None:
            raise ValueError(f"{path.name} has no readable frame")
        chosen += [last] * (len(times) - len(chosen))
        return _pixels(chosen, side), changed


def read_track(path: Path, rate: int) -> tuple[np.ndarray, list[str]]:
    """The sound of a video, float64 in one channel at `rate`.

    Raises:
        ValueError: the file cannot be read or has no sound.
    """
    import av
    import numpy as np

    with _opened(path) as container:
        if not container.streams.audio:
            raise ValueError(f"{path.name} has no sound")
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        parts: list[np.ndarray] = []
        changed: list[str] = []
        for frame in _decoded(container, container.streams.audio[0], changed):
            parts += [part.to_ndarray().reshape(-1) for part in resampler.resample(frame)]
        parts += [part.to_ndarray().reshape(-1) for part in resampler.resample(None)]
    samples = np.concatenate(parts) if parts else np.zeros(0)
    if not len(samples):
        raise ValueError(f"{path.name} has no readable sound")
    return samples.astype(np.float64), changed


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A container; every fault of the file becomes a `ValueError` of one line."""
    import av

    try:
        with av.open(str(path)) as container:
            yield container
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ValueError(f"{path.name} is not a readable video ({reason})") from error


def _decoded(container: Any, stream: Any, changed: list[str]) -> Iterator[Any]:
    """Frames of a stream; packets that cannot be decoded are passed over and noted as "damaged"."""
    import av

    stream.codec_context.thread_count = 1
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:  # the file ends in the middle
            packet, changed[:] = None, ["damaged"]
        if packet is None:
            return
        try:
            frames = packet.decode()
        except av.FFmpegError:
            frames, changed[:] = [], ["damaged"]
        yield from frames


def _frames(path: Path, container: Any, changed: list[str]) -> Iterator[Any]:
    if not container.streams.video:
        raise ValueError(f"{path.name} has no video stream")
    return _decoded(container, container.streams.video[0], changed)


def _all_frames(path: Path, container: Any) -> tuple[list[Any], list[str]]:
    changed: list[str] = []
    frames = list(_frames(path, container, changed))
    if not frames:
        raise ValueError(f"{path.name} has no readable frame")
    return frames, changed


def _pixels(frames: list[Any], side: int) -> np.ndarray:
    """(T, 3, side, side) uint8."""
    import numpy as np

    images = [
        f.reformat(width=side, height=side, format="rgb24", interpolation="BILINEAR").to_ndarray()
        for f in frames
    ]
    return np.stack(images).transpose(0, 3, 1, 2)
