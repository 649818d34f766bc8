"""PSP: positive sample propagation (Zhou et al., CVPR 2021), AGM's network for AVE, an answer a segment.

    h      = H2 H1 x                                           sound of a segment, 128 numbers
    g      = G relu(A h + c)                                   guide: a number a place
    z_p    = w . tanh(K relu(U m_p + b) + g_p)                 score of place p, whose map is m_p
    s      = sum_p softmax(z)_p F2 F1 m_p                      what the sound looks at
    a, v   = BiLSTM(h), BiLSTM(s)                              over the segments of a video
    R      = relu(r(P_v v) r(P_a a)') / sqrt(256)              r: ReLU, then dropout of 0.1
    v', a' = v + prune(R) r(Q_a a), a + prune(R') r(Q_v v)
    logits = C2 relu(C1 (norm(r(O_v v')) + norm(r(O_a a'))) / 2)

`prune` drops the weak relations, those of at most 0.099 in a row of sum 1: with ten segments a row of equal
ones is kept whole.

What depends on one modality alone is its encoder: g and a of the sound, K relu(...) and F2 F1 m_p of the
maps. The authors apply F2 F1 to the weighted mean of the maps, which is the same, as all of it is linear. The
rest, where the modalities meet, is the fusion. There is neither late nor early fusion.

From the authors' code: the layers without bias, the initialization, one LayerNorm for both modalities.
Ours: no second loss. Theirs is cross-entropy + 100 * MSE(cosine similarities of v'' and a'', normalized over
the segments; 1/n at the n segments of the event), with '' for the normed outputs. It belongs to PSP and not
to any of the methods compared here, all of which act on one loss, cross-entropy. Not built are the parts of
their class that it never runs: 118,594 of 1,667,251 parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PSP_KINDS = ("segments", "segment_maps")
"""Kinds of the sound, T x D, and of the maps, T x P x D: T segments, P places."""

SOUND, HIDDEN, ATTENTION, TEMPORAL, HEAD = 128, 256, 512, 256, 64
THRESHOLD, DROPOUT, TINY = 0.099, 0.1, 1e-8


class BiLSTM(nn.Module):
    """One bidirectional layer, 128 -> 2 x 128."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(SOUND, TEMPORAL // 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        """B x T x 128 -> B x T x 256."""
        self.lstm.train()  # cuDNN has no backward pass in evaluation mode; there is nothing to switch off
        return self.lstm(x)[0]


class SoundEncoder(nn.Module):
    """What PSP makes of the sound alone.

    Args:
        channels: numbers a segment.
        places: places of the maps that the sound guides through.
    """

    def __init__(self, channels: int, places: int) -> None:
        super().__init__()
        self.project = _two_maps(channels)
        self.guide = nn.Sequential(
            nn.Linear(SOUND, ATTENTION), nn.ReLU(), nn.Linear(ATTENTION, places, bias=False)
        )
        self.lstm = BiLSTM()
        _xavier(self.guide)

    def forward(self, x: Tensor) -> Tensor:
        """B x T x D -> B x T x (P + 256): the guide g and the sound a."""
        sound = self.project(x)
        return torch.cat([self.guide(sound), self.lstm(sound)], -1)


class MapEncoder(nn.Module):
    """What PSP makes of every place alone.

    Args:
        channels: numbers a place.
        places: P, which is also the number of units of the attention.
    """

    def __init__(self, channels: int, places: int) -> None:
        super().__init__()
        self.keys = nn.Sequential(
            nn.Linear(channels, ATTENTION), nn.ReLU(), nn.Linear(ATTENTION, places, bias=False)
        )
        self.project = _two_maps(channels)
        _xavier(self.keys)

    def forward(self, x: Tensor) -> Tensor:
        """B x T x P x D -> B x T x P x (P + 128): the keys and F2 F1 m_p."""
        return torch.cat([self.keys(x), self.project(x)], -1)


def prune(relations: Tensor) -> Tensor:
    """Rows of relations >= 0 to sum 1, without the weak ones; a row of zeros stays one."""
    rows = relations / (relations.sum(-1, keepdim=True) + TINY)
    strong = torch.where(rows > THRESHOLD, rows, 0.0)
    return strong / (strong.sum(-1, keepdim=True) + TINY)


class Propagation(nn.Module):
    """Each modality takes from the other what its segments are strongly related to; then their mean."""

    def __init__(self) -> None:
        super().__init__()
        names = ("relate_sound", "relate_seen", "send_sound", "send_seen", "out_sound", "out_seen")
        self.layers = nn.ModuleDict({name: nn.Linear(TEMPORAL, TEMPORAL, bias=False) for name in names})
        self.norm = nn.LayerNorm(TEMPORAL, eps=1e-6)
        self.dropout = nn.Dropout(DROPOUT)
        _xavier(self.layers)

    def forward(self, sound: Tensor, seen: Tensor) -> Tensor:
        """Twice B x T x 256 -> B x T x 256."""
        queries, keys = self._layer("relate_seen", seen), self._layer("relate_sound", sound)
        relations = F.relu(queries @ keys.mT / TEMPORAL**0.5)
        new_seen = seen + prune(relations) @ self._layer("send_sound", sound)
        new_sound = sound + prune(relations.mT) @ self._layer("send_seen", seen)
        return (
            self.norm(self._layer("out_seen", new_seen)) + self.norm(self._layer("out_sound", new_sound))
        ) / 2

    def _layer(self, name: str, x: Tensor) -> Tensor:
        return self.dropout(F.relu(self.layers[name](x)))


class PSPFusion(nn.Module):
    """Where PSP's modalities meet.

    Args:
        sound: name of the modality of kind "segments".
        maps: name of the modality of kind "segment_maps".
        places: places of the maps.
        classes: number of classes C.
    """

    def __init__(self, sound: str, maps: str, places: int, classes: int) -> None:
        super().__init__()
        self.sound, self.maps, self.places, self.classes = sound, maps, places, classes
        self.widths = {sound: places + TEMPORAL, maps: places + SOUND}
        self.score = nn.Linear(places, 1, bias=False)
        self.lstm = BiLSTM()
        self.propagation = Propagation()
        self.head = nn.Sequential(
            nn.Linear(TEMPORAL, HEAD, bias=False), nn.ReLU(), nn.Linear(HEAD, classes, bias=False)
        )
        _xavier(self.score, self.head)

    @property
    def outputs(self) -> list[nn.Linear]:
        """The last linear layer, alone in a list."""
        return [cast(nn.Linear, self.head[-1])]

    def before_outputs(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """What goes into the last layer, (B T) x 64, alone in a list."""
        guide, sound = features[self.sound].split([self.places, TEMPORAL], -1)
        keys, values = features[self.maps].split([self.places, SOUND], -1)
        attention = self.score(torch.tanh(keys + guide[..., None])).softmax(-2)
        seen = self.lstm((attention.mT @ values).squeeze(-2))
        return [self.head[:-1](self.propagation(sound, seen).flatten(0, 1))]

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features of the two encoders to logits, (B T) x C: a row a segment, video by video."""
        return self.head[-1](*self.before_outputs(features))


def psp(
    kinds: Mapping[str, str], shapes: Mapping[str, Sequence[int]], classes: int
) -> tuple[dict[str, nn.Module], PSPFusion]:
    """Encoders and fusion of PSP; the arguments are those of `msam.models.build_classifier`.

    Raises:
        ValueError: not one modality of each of `PSP_KINDS`.
    """
    if sorted(kinds.values()) != sorted(PSP_KINDS):
        raise ValueError(
            f"fusion 'psp' needs one modality of each kind of {', '.join(PSP_KINDS)}, not"
            f" {', '.join(kinds.values())}"
        )
    sound, maps = sorted(kinds, key=lambda m: PSP_KINDS.index(kinds[m]))
    _, places, channels = shapes[maps]
    built = {sound: SoundEncoder(shapes[sound][1], places), maps: MapEncoder(channels, places)}
    return {m: built[m] for m in kinds}, PSPFusion(sound, maps, places, classes)


def _two_maps(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, HIDDEN, bias=False), nn.Linear(HIDDEN, SOUND, bias=False))


def _xavier(*modules: nn.Module) -> None:
    """Glorot's uniform initialization of the weights of linear layers; biases keep PyTorch's."""
    for module in modules:
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
