"""The published AV-MNIST folder, as MultiBench and AGM read it.

    avmnist/image/train_data.npy (60000, 784)        avmnist/image/test_data.npy (10000, 784)
    avmnist/audio/train_data.npy (60000, 112, 112)   avmnist/audio/test_data.npy (10000, 112, 112)
    avmnist/train_labels.npy (60000,)                avmnist/test_labels.npy (10000,)

Everything is used as stored, so whatever is wrong in it (see `av_mnist`) stays. The last twelfth of the train
file is for validation, as in MultiBench. Images are divided by the train pixels' standard deviation;
spectrograms, shrunk to `size`, are standardized by the train split's mean and standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._raw import raw_folder
from ._types import SPLITS, DatasetError

if TYPE_CHECKING:
    import numpy as np

CHUNK = 4096


def read_folder(size: int, split_rows: Callable[[int, int], dict[str, np.ndarray]]) -> dict[str, Any]:
    """Build the three splits.

    Args:
        size: side of the spectrograms, a divisor of 112.
        split_rows: from the lengths of the train and test files to split -> numbers of its examples, those of
            the test file counted on.

    Raises:
        DatasetError: a file is missing, damaged, or of another shape than the others.
    """
    import numpy as np

    from ._scale import rounded

    parts = {part: _read(part) for part in ("train", "test")}
    count = len(parts["train"]["label"])
    rows = split_rows(count, len(parts["test"]["label"]))
    source = {split: parts["test" if split == "test" else "train"] for split in SPLITS}
    at = {split: rows[split] - (count if split == "test" else 0) for split in SPLITS}
    images = {split: source[split]["image"][at[split]].astype(float) for split in SPLITS}
    audio = {split: _shrunk(source[split]["audio"], at[split], size) for split in SPLITS}
    scale = images["train"].std()
    mean, deviation = audio["train"].mean(dtype=float), audio["train"].std(dtype=float)
    kind = np.float32 if size == 28 else np.float16
    return {
        split: {
            "image": rounded(images[split] / scale).reshape(-1, 1, 28, 28),
            "audio": rounded((audio[split] - mean) / deviation).astype(kind)[:, None],
            "label": source[split]["label"][at[split]].astype(np.int64),
            "group_image": rows[split],
        }
        for split in SPLITS
    }


def _read(part: str) -> dict[str, np.ndarray]:
    """Images, audio and labels of the train or test files, not yet in memory; lengths and shapes checked."""
    folder = raw_folder() / "avmnist"
    files = {
        "image": (folder / "image" / f"{part}_data.npy", (784,)),
        "audio": (folder / "audio" / f"{part}_data.npy", (112, 112)),
        "label": (folder / f"{part}_labels.npy", ()),
    }
    arrays = {name: _array(path, shape) for name, (path, shape) in files.items()}
    for name, (path, _) in files.items():
        if len(arrays[name]) != len(arrays["label"]):
            raise DatasetError(f"{path} has {len(arrays[name])} rows for {len(arrays['label'])} labels")
    return arrays


def _array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DatasetError(
            f"dataset 'av_mnist' with source avmnist needs {path}: unpack avmnist.tar.gz of MultiBench there"
        ) from None
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{path} cannot be read ({error})") from error
    if array.shape[1:] != shape:
        raise DatasetError(f"{path} has rows of shape {array.shape[1:]}; need {shape}")
    return array


def _shrunk(audio: np.ndarray, rows: np.ndarray, size: int) -> np.ndarray:
    """Rows of the spectrograms, (N, size, size) float32, read in chunks."""
    import numpy as np

    from ._recordings import block_means

    small = np.empty((len(rows), size, size), np.float32)
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        small[start : start + CHUNK] = block_means(audio[chunk].astype(float), size)
    return small
