"""Spoken words from eSpeak NG, through its C library (ctypes) as packaged by espeakng-loader.

eSpeak keeps state between calls and can be set up once in a process. So `speak` runs this file in a fresh
process: the same words and voices give the same samples, however often it is called. Nothing of eSpeak NG
(GPL-3.0-or-later) is shipped here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

RATE = 22050
"""Samples a second of every clip."""


def voices() -> list[str]:
    """Names of eSpeak's voice variants, sorted."""
    import espeakng_loader

    return sorted(path.name for path in Path(espeakng_loader.get_data_path(), "voices", "!v").iterdir())


def speak(words: list[str], accents: list[str], variants: list[str]) -> list[np.ndarray]:
    """Synthesize every word in every accent and voice variant.

    Args:
        words: English words.
        accents: eSpeak voices, as "en-us".
        variants: voice variants, some of `voices()`.

    Returns:
        One int16 array a clip at `RATE`; order: variants outermost, then accents, then words.

    Raises:
        DatasetError: eSpeak cannot be set up or has no such voice.
    """
    import numpy as np

    from ._types import DatasetError

    request = json.dumps([words, accents, variants])
    run = subprocess.run([sys.executable, "-P", __file__], input=request.encode(), capture_output=True)
    if run.returncode:
        lines = run.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {run.returncode}"]
        raise DatasetError(f"eSpeak NG failed: {lines[-1]}")
    count = len(words) * len(accents) * len(variants)
    lengths = np.frombuffer(run.stdout, np.int32, count)
    samples = np.frombuffer(run.stdout, np.int16, offset=lengths.nbytes)
    return np.split(samples, np.cumsum(lengths)[:-1])


def _synthesize(words: list[str], accents: list[str], variants: list[str]) -> list[bytes]:
    import ctypes
    import os
    import tempfile

    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    chunks: list[bytes] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def receive(samples: object, count: int, events: object) -> int:
        if count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))  # type: ignore[arg-type]
        return 0

    with tempfile.TemporaryDirectory() as short:  # eSpeak cuts long data paths off
        os.symlink(espeakng_loader.get_data_path(), os.path.join(short, "espeak-ng-data"))
        if library.espeak_Initialize(2, 0, os.fsencode(short), 0) != RATE:
            raise RuntimeError("cannot set up the library")
        library.espeak_ng_SetRandSeed(1)  # the default seed is the time of day; breathy voices hear it
        library.espeak_SetSynthCallback(receive)
        clips = []
        for voice in (f"{accent}+{variant}" for variant in variants for accent in accents):
            if library.espeak_SetVoiceByName(voice.encode()):
                raise RuntimeError(f"no voice {voice}")
            for word in words:
                chunks.clear()
                text = word.encode() + b"\0"
                library.espeak_Synth(text, len(text), 0, 1, 0, 1, None, None)
                library.espeak_Synchronize()
                clips.append(b"".join(chunks))
    return clips


if __name__ == "__main__":
    import array

    made = _synthesize(*json.load(sys.stdin))
    sys.stdout.buffer.write(array.array("i", [len(clip) // 2 for clip in made]).tobytes() + b"".join(made))
