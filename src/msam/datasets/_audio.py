"""Sound of a clip: reading, one channel, one rate, one length; the spectrograms of the paper and of AGM."""

from __future__ import annotations

from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

FLOOR = 1e-7
SPECTROGRAMS: dict[str, dict[str, Any]] = {
    "paper": {"rate": 16_000, "hop": 512 - 353},
    "agm": {"rate": 22_050, "hop": 353},
}
"""Name -> samples a second, and samples from one frame to the next; a frame has 512 samples."""


def read_sound(path: Path, rate: int) -> tuple[np.ndarray, list[str]]:
    """Samples at `rate`, float64, mean of the channels, and what had to be changed ("mixed", "resampled").

    Raises:
        ValueError: the file cannot be read or has no samples.
    """
    import soundfile

    try:
        samples, found = soundfile.read(path, always_2d=True)
    except (OSError, RuntimeError) as error:  # LibsndfileError is a RuntimeError
        raise ValueError(f"{path.name} is not readable sound ({_line(error)})") from error
    if not len(samples):
        raise ValueError(f"{path.name} has no samples")
    changed = ["mixed"] if samples.shape[1] > 1 else []
    mono = samples.mean(axis=1)
    if found != rate:
        changed.append("resampled")
    return resample(mono, found, rate), changed


def resample(samples: np.ndarray, found: int, rate: int) -> np.ndarray:
    """Samples at another rate, by SciPy's polyphase filter."""
    from scipy.signal import resample_poly

    divisor = gcd(found, rate)
    return samples if found == rate else resample_poly(samples, rate // divisor, found // divisor)


def fitted(samples: np.ndarray, count: int) -> np.ndarray:
    """Repeat a short sound and cut it, as all public code does; limit it to -1..1."""
    import numpy as np

    return np.clip(np.resize(samples, count), -1, 1)


def spectrogram(samples: np.ndarray, name: str) -> np.ndarray:
    """Spectrogram of one channel, 257 frequencies x frames, float32.

    Args:
        samples: at the rate of the spectrogram.
        name: "paper": logarithm of SciPy's power spectrogram with its defaults (512 samples a frame, 353 of
            them shared with the next), standardized by its own mean and deviation, as in the public code of
            PMR; "agm": logarithm of the magnitude of librosa's centered transform (hop 353).
    """
    import numpy as np

    if name == "paper":
        from scipy.signal import spectrogram as transform

        power = transform(samples, SPECTROGRAMS[name]["rate"], nperseg=512, noverlap=353)[2]
        values = np.log(power + FLOOR)
        return ((values - values.mean()) / (values.std() + 1e-9)).astype(np.float32)
    from ._spectrogram import power as frames

    padded = np.pad(samples, 256)
    return np.log(np.sqrt(frames(padded, 512, SPECTROGRAMS[name]["hop"])) + FLOOR).astype(np.float32)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
