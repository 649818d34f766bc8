"""The paper's networks: their sizes, their parts against plain twins, and every kind of method on them."""

import copy

import pytest
import torch
import torch.nn.functional as F

from msam import methods
from msam.datasets import Split
from msam.models import (
    EarlyFusion,
    FunnyTransformer,
    LateFusion,
    MultimodalClassifier,
    ResNetEncoder,
    build_classifier,
    inputs,
)
from msam.optim._passes import random_state, set_random_state

DATASETS = {
    "av_mnist": ({"image": ("image", (1, 28, 28)), "audio": ("spectrogram", (1, 112, 112))}, 10),
    "crema_d": ({"audio": ("spectrogram", (1, 257, 299)), "visual": ("image", (3, 224, 224))}, 6),
    "ur_funny": (
        {"audio": ("sequence", (50, 81)), "visual": ("sequence", (50, 371)), "text": ("sequence", (50, 300))},
        2,
    ),
}
COUNTS = {  # METHODS C2, from AGM's code
    ("av_mnist", "late"): 22_350_740,
    ("crema_d", "late"): 22_352_908,
    ("ur_funny", "late"): 132_917_766,
    ("av_mnist", "early"): 30_753_674,
    ("crema_d", "early"): 30_755_846,
    ("ur_funny", "early"): 146_563_586,
}


@pytest.mark.parametrize(("name", "fusion"), COUNTS)
def test_the_networks_have_the_published_number_of_parameters(name, fusion):
    parts, classes = DATASETS[name]
    kinds, shapes = ({m: part[i] for m, part in parts.items()} for i in (0, 1))
    with torch.device("meta"):
        model = build_classifier(kinds, shapes, classes, fusion, 8, size="paper")
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name, fusion]
    owned = [p for group in model.param_groups() for p in group["params"]]
    assert len(owned) == len(set(owned)) == len(list(model.parameters()))


def test_the_small_size_is_the_default_and_draws_the_same_numbers():
    arguments = ({"a": "image", "b": "sequence"}, {"a": (1, 12, 12), "b": (4, 3)}, 3, "early", 8)
    torch.manual_seed(0)
    first = build_classifier(*arguments)
    torch.manual_seed(0)
    second = build_classifier(*arguments, size="small")
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert first.fusion.layers[1].linear.out_features == 2 * 16


def test_a_vector_has_the_small_encoder_beside_a_paper_net():
    kinds, shapes = {"a": "vector", "b": "spectrogram"}, {"a": (5,), "b": (1, 33, 33)}
    model = build_classifier(kinds, shapes, 3, "early", 16, size="paper")
    assert model.fusion.widths == {"a": 16, "b": 512}
    assert model({"a": torch.randn(2, 5), "b": torch.randn(2, 1, 33, 33)}).shape == (2, 3)


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        ("vector", "huge", "unknown size 'huge'; choose from small, paper"),
        (
            "sensor",
            "paper",
            "unknown kind of modality 'sensor'; choose from image, spectrogram, sequence, ve",
        ),
    ],
)
def test_unknown_sizes_and_kinds_are_refused_with_the_choices(kind, size, message):
    with pytest.raises(ValueError, match=message):
        build_classifier({"a": kind}, {"a": (3, 9)}, 3, "late", 8, size=size)


# ResNet18


def block(x, w, name, stride):
    """A basic block with BatchNorm on the statistics of the batch, from the names of its weights."""

    def conv(x, part, stride=1, padding=1):
        return F.conv2d(x, w[f"{name}.{part}.weight"], stride=stride, padding=padding)

    def norm(x, part):
        return F.batch_norm(
            x, None, None, w[f"{name}.{part}.weight"], w[f"{name}.{part}.bias"], training=True
        )

    out = norm(conv(F.relu(norm(conv(x, "conv1", stride), "bn1")), "conv2"), "bn2")
    if f"{name}.downsample.0.weight" in w:
        x = norm(conv(x, "downsample.0", stride, 0), "downsample.1")
    return F.relu(out + x)


def test_resnet_is_the_network_of_the_papers_code():
    """Against stages written out by hand."""
    torch.manual_seed(0)
    encoder = ResNetEncoder((1, 65, 47))
    w = dict(encoder.net.named_parameters())
    x = torch.randn(3, 1, 65, 47)
    out = F.conv2d(x, w["conv1.weight"], stride=2, padding=3)
    out = F.relu(F.batch_norm(out, None, None, w["bn1.weight"], w["bn1.bias"], training=True))
    out = F.max_pool2d(out, 3, 2, 1)
    for stage in range(1, 5):
        for number in range(2):
            out = block(out, w, f"layer{stage}.{number}", 2 if stage > 1 and number == 0 else 1)
    torch.testing.assert_close(encoder(x), out.mean((2, 3)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 28, 28), 1), ((1, 112, 112), 4), ((1, 257, 188), (9, 6)), ((3, 224, 224), 7)]
)
def test_feature_maps_of_resnet_have_the_published_sizes(shape, size):
    encoder = ResNetEncoder(shape).eval()
    seen = []
    encoder.net.avgpool.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[2:])))
    encoder(torch.zeros(1, *shape))
    assert seen == [size if isinstance(size, tuple) else (size, size)]


def test_the_initialization_of_resnet():
    torch.manual_seed(0)
    encoder = ResNetEncoder((1, 32, 32))
    for name, p in encoder.named_parameters():
        if name.endswith("bias"):
            assert not p.any()
        elif p.dim() == 4:
            assert float(p.detach().std()) == pytest.approx(
                (2 / (p.shape[0] * p.shape[2] * p.shape[3])) ** 0.5, rel=0.1
            )
    scales = torch.cat([p.detach() for p in encoder.parameters() if p.dim() == 1])
    scales = scales[scales != 0]
    assert float(scales.mean()) == pytest.approx(1, abs=0.002)
    assert float(scales.std()) == pytest.approx(0.02, rel=0.05)


def test_frames_are_encoded_one_by_one_and_averaged():
    for encoder in (ResNetEncoder((2, 3, 32, 32)), build_small((2, 3, 32, 32))):
        encoder.eval()
        x = torch.randn(4, 2, 3, 32, 32)
        expected = (encoder(x[:, 0]) + encoder(x[:, 1])) / 2
        torch.testing.assert_close(encoder(x), expected, rtol=1e-4, atol=1e-5)


def build_small(shape):
    return build_classifier({"a": "image"}, {"a": shape}, 2, "late", 8).encoders["a"]


def test_the_networks_survive_a_checkpoint(tmp_path):
    for encoder, x in (
        (ResNetEncoder((1, 32, 32)), torch.randn(2, 1, 32, 32)),
        (FunnyTransformer((6, 5), 16, layers=1), torch.randn(2, 6, 5)),
    ):
        torch.save(encoder.eval(), tmp_path / "encoder.pt")
        again = torch.load(tmp_path / "encoder.pt", weights_only=False)
        assert torch.equal(again(x), encoder(x))


# Bytes


def test_bytes_are_standardized_by_the_statistics_of_imagenet_and_floats_are_left_alone():
    from torchvision.transforms.functional import normalize

    images = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    expected = normalize(images.float() / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(inputs.as_input(images, False), expected)
    floats = torch.randn(2, 1, 5, 4)
    assert inputs.as_input(floats, True) is floats
    gray = inputs.as_input(torch.full((1, 1, 2, 2), 255, dtype=torch.uint8), False)
    torch.testing.assert_close(gray, torch.full((1, 1, 2, 2), (1 - 0.449) / 0.226))


def test_random_crops_are_crops():
    """Of an image whose values are its coordinates, a crop shows where it was taken from."""
    torch.manual_seed(0)
    size, count = 64, 2000
    rows, columns = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    images = torch.stack([rows, columns])[None].expand(count, -1, -1, -1) / size
    crops = inputs.random_resized_crop(images)
    assert crops.shape == images.shape
    assert crops.min() >= 0
    assert crops.max() <= 1
    inner = crops[:, :, 8:-8, 8:-8]  # away from the border, where values are clamped
    down = (inner[:, 0, 40, 5] - inner[:, 0, 8, 5]) * size / 32
    across = (inner[:, 1, 5, 40] - inner[:, 1, 5, 8]) * size / 32
    torch.testing.assert_close(inner[:, 0].std(2), torch.zeros(count, 48), atol=1e-4, rtol=0)
    assert (down > 0).all()
    assert 0.45 < (across < 0).float().mean() < 0.55
    area = (down * across).abs()
    assert area.min() > 0.06
    assert 0.48 < area.mean() < 0.54
    ratio = across.abs() / down
    assert ratio.min() > 0.74
    assert ratio.max() < 1.35


def test_both_passes_of_sam_see_the_same_crop():
    encoder = ResNetEncoder((3, 32, 32))
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    state = random_state(encoder.parameters())
    first, other = encoder(images), encoder(images)
    set_random_state(state)
    assert torch.equal(encoder(images), first)
    assert not torch.allclose(other, first)
    encoder.eval()
    assert torch.equal(encoder(images), encoder(images))


# The Transformer


def test_the_transformer_takes_the_first_step_of_torchs_encoder():
    torch.manual_seed(0)
    encoder = FunnyTransformer((6, 5), 16, layers=2).eval()
    x = torch.randn(3, 6, 5)
    h = x @ encoder.project.weight[:, :, 0].T
    for layer in encoder.layers.layers:
        attended = layer.self_attn(h, h, h, need_weights=False)[0]
        h = layer.norm1(h + attended)
        h = layer.norm2(h + layer.linear2(F.relu(layer.linear1(h))))
        assert layer.linear1.out_features == 2048
        assert layer.self_attn.num_heads == 4
    torch.testing.assert_close(encoder(x), h[:, 0], rtol=1e-4, atol=1e-5)


def test_the_transformer_does_not_know_the_order_of_the_later_steps_but_sees_them():
    encoder = FunnyTransformer((6, 5), 16, layers=2).eval()
    x = torch.randn(2, 6, 5)
    mixed = x[:, [0, 3, 1, 5, 2, 4]]
    torch.testing.assert_close(encoder(mixed), encoder(x), rtol=1e-4, atol=1e-5)
    padded = torch.cat([x, torch.zeros(2, 3, 5)], 1)
    assert not torch.allclose(encoder(padded), encoder(x), atol=1e-4)  # no mask: padding counts


# Methods

CONFIG = {"rho": 0.05, "epochs": 2}


def images_and_sounds(fusion):
    kinds = {"audio": "spectrogram", "visual": "image"}
    model = build_classifier(
        kinds, {"audio": (1, 33, 33), "visual": (2, 3, 32, 32)}, 3, fusion, 8, size="paper"
    )
    pixels = torch.randint(0, 256, (4, 2, 3, 32, 32), dtype=torch.uint8)
    return model, Split({"audio": torch.randn(4, 1, 33, 33), "visual": pixels}, torch.tensor([0, 1, 2, 0]))


def sequences(fusion):
    shapes = {"audio": (6, 4), "visual": (6, 7), "text": (6, 3)}
    encoders = {m: FunnyTransformer(shape, 16, layers=1) for m, shape in shapes.items()}
    widths = {m: encoder.width for m, encoder in encoders.items()}
    heads = LateFusion(widths, 2) if fusion == "late" else EarlyFusion(widths, 2, (24, 12))
    data = {m: torch.randn(4, *shape) for m, shape in shapes.items()}
    return MultimodalClassifier(encoders, heads), Split(data, torch.tensor([0, 1, 1, 0]))


@pytest.mark.parametrize("build", [images_and_sounds, sequences])
@pytest.mark.parametrize("fusion", ["late", "early"])
def test_one_step_of_every_kind_of_method(build, fusion):
    torch.manual_seed(0)
    model, batch = build(fusion)
    start = copy.deepcopy(model.state_dict())
    for name in ("joint", "sam", "msam", "agm", "ogm_ge", "cggm", "mmpareto"):
        model.load_state_dict(start)
        model.train()
        method = methods.build(name, {})
        method.check(fusion, model.modalities)
        base = torch.optim.SGD(model.param_groups(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
        method.setup(model, base, CONFIG)
        report = method.step(batch)
        assert report.loss.isfinite(), name
        for name_, p in model.named_parameters():
            assert p.grad is not None, (name, name_)
            assert p.isfinite().all(), (name, name_)
        if name != "cggm":  # which stands still where only the others have learnt
            moved = [k for k, p in model.state_dict().items() if not torch.equal(p, start[k])]
            assert len(moved) > 0.9 * len(start), name
