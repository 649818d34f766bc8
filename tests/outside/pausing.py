"""M-SAM that stands still in seed 1 while the file named by OUTSIDE_PAUSE exists, for tests that kill it."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from msam.methods.msam import MSAM
from msam.models import MultimodalClassifier


class Pausing(MSAM):
    """M-SAM; while it waits, its process id stands in the file."""

    def setup(self, model: MultimodalClassifier, optimizer: Optimizer, config: Mapping[str, Any]) -> None:
        """Wait in seed 1."""
        super().setup(model, optimizer, config)
        pause = Path(os.environ.get("OUTSIDE_PAUSE", "/nonexistent"))
        while torch.initial_seed() == 1 and pause.exists():
            pause.write_text(str(os.getpid()))
            time.sleep(0.1)
