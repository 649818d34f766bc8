"""Optimizers: SAM and modality-aware SAM around any `torch.optim` optimizer."""

from msam.optim.modality_aware import ModalityAwareSAM
from msam.optim.sam import SAM

MSAM = ModalityAwareSAM

__all__ = ["MSAM", "SAM", "ModalityAwareSAM"]
