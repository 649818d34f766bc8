"""Models: encoders, fusions and the classifier that joins them."""

from msam.models.classifier import MultimodalClassifier, build_classifier
from msam.models.encoders import ENCODERS, ConvEncoder, SequenceEncoder, VectorEncoder
from msam.models.fast import FAST, FastEncoder
from msam.models.fusion import FUSIONS, EarlyFusion, LateFusion, Maxout
from msam.models.paper import FunnyTransformer, ResNetEncoder

__all__ = [
    "ENCODERS",
    "FAST",
    "FUSIONS",
    "ConvEncoder",
    "EarlyFusion",
    "FastEncoder",
    "FunnyTransformer",
    "LateFusion",
    "Maxout",
    "MultimodalClassifier",
    "ResNetEncoder",
    "SequenceEncoder",
    "VectorEncoder",
    "build_classifier",
]
