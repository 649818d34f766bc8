"""Datasets: one file each, found by file name; built once into a cache folder, checked, loaded as tensors.

To add a dataset, add one module to this package, or write it anywhere else and name it with its dots
("my_project.my_dataset"). The module holds

* ``TITLE``, ``ORIGIN``, ``LICENSE``: one line of text each;
* ``STANDS_FOR``: the paper's dataset it stands in for, or None;
* ``CLASSES``: the class names; ``KINDS``: modality -> "image", "spectrogram", "sensor", "vector" or
  "sequence" (either may be a function of the options instead);
* ``build(**options)``: split ("train", "validation", "test") -> arrays: one a modality, first axis the
  example; ``label``, the class numbers; ``group_<name>`` (voice, subject, ...): what two splits must never
  share.
  The keyword defaults of ``build`` are the dataset's options and their defaults.

Modules whose names start with an underscore are helpers.
"""

from ._cache import build, describe, load, names
from ._types import Dataset, DatasetError, Split

__all__ = ["Dataset", "DatasetError", "Split", "build", "describe", "load", "names"]
