"""Datasets: one file each, found by file name; prepared once in a cache folder, checked, loaded as tensors.

To add a dataset, add one module to this package, or write it anywhere else and name it with its dots
("my_project.my_dataset"). The module holds

* ``TITLE``, ``ORIGIN``, ``LICENSE``: one line of text each;
* ``STANDS_FOR``: the paper's dataset it stands in for, or None;
* ``CLASSES``: the class names; ``KINDS``: modality -> "image", "spectrogram", "sensor", "vector",
  "sequence", "segments" (T x D) or "segment_maps" (T x places x D) (either may be a function of the options
  instead);
* ``build(**options)``: split ("train", "validation", "test") -> arrays: one a modality, first axis the
  example; ``label``, the class numbers, N x T where a modality has segments; ``group_<name>`` (voice,
  subject, ...): what two splits must never share.
  The keyword defaults of ``build`` are the dataset's options and their defaults. Two more keys may be there:
  ``report``, what else there is to say, plain JSON: names and numbers of clips that are corrupt or missing;
  ``sounds``, where the licence allows it: number of a train example -> `_samples.Sound` each, of the examples
  that `_samples.shown` names;

and, where it differs from most,

* ``LEVEL``: the level of evidence, "embedded" (the default), "compact" or "paper";
* ``FILES``: the raw files it is made from, `_raw.RawFile` each; `build` finds them through `_raw.locate`, and
  may keep half-done work in a `_raw.work_folder`;
* ``PRIVATE``: True where the licence does not allow examples to be passed on: written descriptions have none;
* ``CONSENT``: a sentence that somebody accepts who downloads them;
* ``STORED``: modality -> "float16" or "uint8" where float32 would be a waste: `build` returns it in that
  type, as a memory map if it is large, and `load` gives it so (a function of the options, if need be);
* ``EXPECTED``: function of the options, how much `build` will return, `_expected.Expected`: `msam plan`
  counts costs from it before the dataset is there. The datasets of this package have theirs in `_expected`.

Modules whose names start with an underscore are helpers.
"""

from ._cache import describe, load, names, prepare
from ._types import Dataset, DatasetError, Split

__all__ = ["Dataset", "DatasetError", "Split", "describe", "load", "names", "prepare"]
