"""Recordings of one channel as arrays, or the reason why not; the spectrogram of AV-MNIST."""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ._audio import resample
from ._spectrogram import hann
from ._types import DatasetError

if TYPE_CHECKING:
    import numpy as np

SIDE = 112
"""Rows and columns of AV-MNIST's spectrograms."""

WINDOW = 2 * (SIDE - 1)
"""Samples of a frame, so that its spectrum has `SIDE` frequencies: 27.75 ms at 8 kHz."""

FLOOR = 1e-2
"""Added to the power before the logarithm: white noise of rms 1 has a power of 83, so 39 dB below it."""

SHOWN = 5
"""So many faulty files are named."""


def read_all(paths: Iterable[Path], read: Callable[[Path], np.ndarray]) -> list[np.ndarray]:
    """Read every file.

    Raises:
        DatasetError: some cannot be read; the message lists the first of them with the reasons.
    """
    waves, problems = [], []
    for path in paths:
        try:
            waves.append(read(path))
        except DatasetError as error:
            problems.append(str(error))
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise DatasetError("; ".join(problems[:SHOWN]) + more)
    return waves


def read_wav(path: Path, rate: int) -> np.ndarray:
    """Samples of a 16-bit wav file of one channel, float64 in -1..1.

    Raises:
        DatasetError: it is damaged, shorter than its header says or than one frame, or of another format.
    """
    import numpy as np

    try:
        with wave.open(str(path)) as file:
            found = (
                f"{file.getframerate()} Hz, {file.getnchannels()} channel(s), {8 * file.getsampwidth()} bit"
            )
            count, content = file.getnframes(), file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise DatasetError(f"{path} cannot be read ({error or 'it ends too early'})") from error
    _check_format(path, found, f"{rate} Hz, 1 channel(s), 16 bit")
    if len(content) != 2 * count:
        raise DatasetError(f"{path} is cut off: {len(content) // 2} of {count} samples")
    if count < WINDOW:
        raise DatasetError(f"{path} has {count} samples; need at least {WINDOW}")
    samples = np.frombuffer(content, "<i2") / 32768
    if not samples.any():
        raise DatasetError(f"{path} is silent")
    return samples


def read_ogg(path: Path, rate: int, new_rate: int) -> np.ndarray:
    """Samples of an ogg file of one channel, resampled, float64.

    Args:
        path: the file.
        rate: samples a second that it must have.
        new_rate: samples a second of the result.

    Raises:
        DatasetError: it is damaged, cut off, silent, or of another format.
    """
    import soundfile

    try:
        whole = _ends(path.read_bytes())
        samples, found = soundfile.read(path, always_2d=True)
    except (OSError, RuntimeError) as error:
        raise DatasetError(f"{path} cannot be read ({error})") from error
    if not whole:
        raise DatasetError(f"{path} is cut off: its last page is missing")
    _check_format(path, f"{found} Hz, {samples.shape[1]} channel(s)", f"{rate} Hz, 1 channel(s)")
    if not samples.any():
        raise DatasetError(f"{path} is silent")
    return resample(samples[:, 0], rate, new_rate)


def _ends(content: bytes) -> bool:
    """Whether an ogg file's last page is marked as the last one and is complete (RFC 3533)."""
    start = content.rfind(b"OggS")
    page = content[start:]
    if start < 0 or len(page) < 27 or not page[5] & 4:
        return False
    sizes = page[27 : 27 + page[26]]
    return len(page) >= 27 + page[26] + sum(sizes)


def _check_format(path: Path, found: str, needed: str) -> None:
    if found != needed:
        raise DatasetError(f"{path} has {found}; need {needed}")


def mix(clip: np.ndarray, noise: np.ndarray, level: float) -> np.ndarray:
    """Add noise of `level` times the clip's root mean square; both arrays have the same length."""
    import numpy as np

    loudness = [np.sqrt(np.mean(x**2)) for x in (clip, noise)]
    return clip + level * loudness[0] / max(loudness[1], 1e-12) * noise


def spectrogram(samples: np.ndarray, size: int) -> np.ndarray:
    """Log power spectrogram, frequencies first, low ones on top.

    The samples are divided by their root mean square. `SIDE` frames with a Hann window, spread evenly over
    the recording however long it is; blocks of `SIDE / size` frequencies x frames are averaged before the
    logarithm.

    Args:
        samples: (N,), N at least `WINDOW`.
        size: side of the result, a divisor of `SIDE`.

    Returns:
        (size, size).
    """
    import numpy as np

    starts = np.linspace(0, len(samples) - WINDOW, SIDE).round().astype(int)
    loud = samples / np.sqrt(np.mean(samples**2))
    frames = np.lib.stride_tricks.sliding_window_view(loud, WINDOW)[starts] * hann(WINDOW)
    spectrum = np.fft.rfft(frames).T
    power = spectrum.real**2 + spectrum.imag**2
    return np.log(block_means(power, size) + FLOOR)


def block_means(values: np.ndarray, size: int) -> np.ndarray:
    """Shrink the last two axes, equally long, to `size` each, which divides their length."""
    block = values.shape[-1] // size
    return values.reshape(*values.shape[:-2], size, block, size, block).mean(axis=(-3, -1))
