"""Models: encoders, fusions and the classifier that joins them."""

from msam.models.classifier import MultimodalClassifier, build_classifier
from msam.models.encoders import ENCODERS, ConvEncoder, SequenceEncoder, VectorEncoder
from msam.models.fast import FAST, FastEncoder
from msam.models.fusion import FUSIONS, EarlyFusion, LateFusion, Maxout
from msam.models.paper import FunnyTransformer, ResNetEncoder
from msam.models.psp import PSP_KINDS, PSPFusion

__all__ = [
    "ENCODERS",
    "FAST",
    "FUSIONS",
    "PSP_KINDS",
    "ConvEncoder",
    "EarlyFusion",
    "FastEncoder",
    "FunnyTransformer",
    "LateFusion",
    "Maxout",
    "MultimodalClassifier",
    "PSPFusion",
    "ResNetEncoder",
    "SequenceEncoder",
    "VectorEncoder",
    "build_classifier",
]
