"""Models: encoders, fusions and the classifier that joins them."""

from msam.models.classifier import MultimodalClassifier, build_classifier
from msam.models.encoders import ENCODERS, ConvEncoder, SequenceEncoder, VectorEncoder
from msam.models.fusion import FUSIONS, EarlyFusion, LateFusion, Maxout

__all__ = [
    "ENCODERS",
    "FUSIONS",
    "ConvEncoder",
    "EarlyFusion",
    "LateFusion",
    "Maxout",
    "MultimodalClassifier",
    "SequenceEncoder",
    "VectorEncoder",
    "build_classifier",
]
