"""The examples that a description shows: which ones, their values to look at, their sounds to listen to."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

SHOWN = 4
"""So many examples, each of another class."""

PREVIEW = 128
RATE = 8000
LONGEST = 1.0
PEAK = 0.5


class Sound(NamedTuple):
    """What can be heard of an example.

    Attributes:
        title: what it is, in a few words.
        credit: whose it is and under which licence; "" where nobody has to be named.
        rate: samples a second.
        samples: (N,), of any loudness, not silent.
    """

    title: str
    credit: str
    rate: int
    samples: np.ndarray


def shown(labels: np.ndarray) -> list[int]:
    """The first example of each of the first `SHOWN` classes; labels are (N,), or (N, T) for T segments."""
    import numpy as np

    first = np.unique(labels, return_index=True)[1][:SHOWN]
    return (first // (labels.size // len(labels))).tolist()


def preview(values: np.ndarray) -> list[Any]:
    """Values to look at: of a long axis only every second, third, ... entry, at most `PREVIEW`."""
    thin = tuple(slice(None, None, -(-size // PREVIEW) or 1) for size in values.shape)
    return values[thin].astype(float).round(3).tolist()


def sounds(heard: Mapping[int, Sequence[Sound]], row: int) -> dict[str, Any]:
    """What a sample's record says of its sounds: nothing where there are none."""
    found = [{"title": s.title, "credit": s.credit, "wav": wav(s)} for s in heard.get(row, ())]
    return {"sounds": found} if found else {}


def wav(sound: Sound) -> str:
    """A sound as a WAV file in base64: one channel, 16 bit, `RATE`, at most `LONGEST` s, peak `PEAK`."""
    import numpy as np

    from ._audio import resample

    samples = resample(sound.samples, sound.rate, RATE)[: int(LONGEST * RATE)]
    whole = (samples * (PEAK * 32767 / np.abs(samples).max())).round().astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE)
        writer.writeframes(whole.tobytes())
    return base64.b64encode(file.getvalue()).decode()
