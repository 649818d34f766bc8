"""Log-mel spectrograms, in a few lines of NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

FLOOR = 1e-6


def hann(window: int) -> np.ndarray:
    """Periodic Hann window, (window,)."""
    import numpy as np

    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)


def power(waves: np.ndarray, window: int, hop: int) -> np.ndarray:
    """Power spectrogram with a periodic Hann window, frames not padded.

    Args:
        waves: (..., samples).
        window: samples a frame, even.
        hop: samples from one frame to the next.

    Returns:
        (..., window / 2 + 1, frames), frames = 1 + (samples - window) // hop.
    """
    import numpy as np

    frames = np.lib.stride_tricks.sliding_window_view(waves, window, axis=-1)[..., ::hop, :]
    return np.moveaxis(np.abs(np.fft.rfft(frames * hann(window))) ** 2, -1, -2)


def mel_filters(bands: int, window: int, rate: int, low: float, high: float) -> np.ndarray:
    """Triangular filters, evenly spaced on the mel scale 2595 log10(1 + f / 700), each with peak 1.

    Args:
        bands: number of filters.
        window: samples a frame of the spectrogram they are applied to.
        rate: samples a second.
        low: lower edge of the first filter in Hz.
        high: upper edge of the last filter in Hz.

    Returns:
        (bands, window / 2 + 1).
    """
    import numpy as np

    mels = np.linspace(2595 * np.log10(1 + low / 700), 2595 * np.log10(1 + high / 700), bands + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    frequency = np.fft.rfftfreq(window, 1 / rate)
    left, center, right = (edges[i : i + bands, None] for i in range(3))
    return np.clip(
        np.minimum((frequency - left) / (center - left), (right - frequency) / (right - center)), 0, None
    )


def log_mel(
    waves: np.ndarray, rate: int, *, window: int, hop: int, bands: int, low: float, high: float
) -> np.ndarray:
    """Natural logarithm of the mel power, (..., bands, frames). Arguments as above; `waves` in -1..1."""
    import numpy as np

    return np.log(mel_filters(bands, window, rate, low, high) @ power(waves, window, hop) + FLOOR)
