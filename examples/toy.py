"""What the examples share: made-up pictures and sounds, and a network for them."""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

CLASSES = 4


def dataset(split: int, size: int) -> TensorDataset:
    """Pictures, size x 64, noisier sounds, size x 16, and labels."""
    patterns = torch.Generator().manual_seed(0)
    picture, sound = (
        torch.randn(CLASSES, width, generator=patterns) for width in (64, 16)
    )
    draw = torch.Generator().manual_seed(1 + split)
    labels = torch.randint(CLASSES, (size,), generator=draw)
    image = picture[labels] + 3 * torch.randn(size, 64, generator=draw)
    audio = sound[labels] + 4 * torch.randn(size, 16, generator=draw)
    return TensorDataset(image, audio, labels)


def loaders(batch: int = 64) -> tuple[DataLoader, DataLoader]:
    """Batches for training and for testing."""
    train, test = dataset(0, 2048), dataset(1, 1024)
    return DataLoader(train, batch, shuffle=True, drop_last=True), DataLoader(
        test, 256
    )


class Net(nn.Module):
    """An encoder for each modality; their features are concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU())
        self.audio = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU())
        self.head = nn.Linear(64, CLASSES)

    def forward(self, image: Tensor, audio: Tensor) -> Tensor:
        """Logits, B x 4."""
        return self.head(torch.cat([self.image(image), self.audio(audio)], -1))


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader) -> float:
    """Fraction of the examples that is right."""
    model.eval()
    right = [
        (model(*inputs).argmax(-1) == labels).float() for *inputs, labels in loader
    ]
    model.train()
    return float(torch.cat(right).mean())
