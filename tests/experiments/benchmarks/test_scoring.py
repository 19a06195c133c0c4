"""The released definitions against literal sums in float64 and counted work; the command from end to end."""

import csv
import json
import math
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import lpips
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from baselines.released.scoring import (
    library_lpips,
    lpips_of_pairs,
    square_crops,
    style_layers,
    style_of_pairs,
)
from experiments.benchmarks import intra, scoring, scoring_pass
from experiments.benchmarks.intra import NAMES, relative_difference
from experiments.benchmarks.scoring import main
from experiments.benchmarks.timing import count_flops
from experiments.common import resources as cost
from experiments.metrics.config import MetricsConfig
from experiments.metrics.inception import FeatureNetwork
from experiments.metrics.measure import PanoramaImage
from experiments.metrics.networks import load_networks
from syncdiffusion.errors import UsageError
from tests.experiments.composing import compose_plan
from tests.metric_networks import load_or_skip

SIZE = 32
VGG = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # channels, a pooling between blocks
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module", autouse=True)
def weights() -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of VGG-16's convolutions in order, float64."""
    state = {name: value.double() for name, value in load_or_skip("lpips_vgg").trunk.layers.state_dict().items()}
    return [(state[f"{i}.weight"], state[f"{i}.bias"]) for i in sorted({int(name.split(".")[0]) for name in state})]


@pytest.fixture(scope="module")
def panorama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three squares of different pictures beside each other and a rest that belongs to none."""
    (item,) = scoring.write_pictures(tmp_path_factory.mktemp("pictures"), "panorama", 1, SIZE, 3 * SIZE + 8)
    return item.path


@pytest.fixture
def squares(panorama: Path) -> list[Tensor]:
    """The three squares [1, 3, s, s] in [0, 1], cut by hand, float64."""
    pixels = torch.from_numpy(np.array(Image.open(panorama))).permute(2, 0, 1)[None].double() / 255
    return [pixels[..., :32], pixels[..., 32:64], pixels[..., 64:96]]


def convolutions(image: Tensor, weights: list[tuple[Tensor, Tensor]]) -> list[list[Tensor]]:
    """Every convolution's output before its ReLU, block by block, from a normalised image [1, 3, s, s]."""
    x, left, blocks = image, iter(weights), []
    for channels in VGG:
        x = functional.max_pool2d(x, 2) if blocks else x
        blocks.append([])
        for count in channels:
            x = functional.conv2d(x, *next(left), padding=1)
            assert x.shape[1] == count
            blocks[-1].append(x)
            x = functional.relu(x)
    return blocks


def test_released_lpips_is_the_literal_sum_for_every_pair_in_order(panorama, squares, weights):
    heads = torch.load(
        Path(lpips.__file__).parent / "weights" / "v0.1" / "vgg.pth", weights_only=True, map_location="cpu"
    )
    shift, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))

    def features(image: Tensor) -> list[Tensor]:
        last = [block[-1].relu() for block in convolutions((2 * image - 1 - shift) / scale, weights)]
        return [x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10) for x in last]

    def distance(a: Tensor, b: Tensor) -> float:
        layers = enumerate(zip(features(a), features(b), strict=True))
        return sum(float((heads[f"lin{i}.model.1.weight"] * (x - y) ** 2).sum(1).mean()) for i, (x, y) in layers)

    found = lpips_of_pairs(library_lpips("cpu"), square_crops(panorama, SIZE, "cpu"))
    expected = [distance(squares[i], squares[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert len(set(np.round(expected, 3))) == 3  # a wrong order would show
    np.testing.assert_allclose(found, expected, rtol=1e-5)  # float32 against float64


def test_released_style_is_the_literal_sum_for_every_pair_in_order(panorama, squares, weights):
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))

    def grams(image: Tensor) -> list[Tensor]:
        first, second, third, *_ = convolutions((image - mean) / deviation, weights)
        return [torch.einsum("nchw,ndhw->cd", x, x) / x.numel() for x in (*first, *second, third[0])]

    def distance(a: Tensor, b: Tensor) -> float:
        return sum(float(((x - y) ** 2).mean()) for x, y in zip(grams(a), grams(b), strict=True))

    found = style_of_pairs(style_layers("cpu"), square_crops(panorama, SIZE, "cpu"))
    expected = [distance(a, b) for a, b in combinations(squares, 2)]
    assert min(expected) > 0 and np.ptp(expected) > 0.1 * max(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_released_lpips_looks_at_both_images_of_every_pair_alone(panorama):
    library, seen = library_lpips("cpu"), []
    hook = library.net.slice1.register_forward_hook(lambda module, given, made: seen.append(tuple(given[0].shape)))
    try:
        lpips_of_pairs(library, square_crops(panorama, SIZE, "cpu"))
    finally:
        hook.remove()
    assert seen == [(1, 3, SIZE, SIZE)] * 2 * 3


def test_released_style_goes_through_the_growing_network_from_the_start(panorama):
    """FLOPs reckoned by hand: the first image through every beginning of the network, the second through all of it."""
    sides, channels = (SIZE, SIZE, SIZE // 2, SIZE // 2, SIZE // 4), (3, 64, 64, 128, 128, 256)
    conv = [2 * 9 * channels[k] * channels[k + 1] * sides[k] ** 2 for k in range(5)]
    gram = [2 * channels[k + 1] ** 2 * sides[k] ** 2 for k in range(5)]
    first = sum(sum(conv[: k + 1]) + sum(gram[:k]) + gram[k] for k in range(5))  # earlier losses are in the way
    crops, layers = square_crops(panorama, SIZE, "cpu"), style_layers("cpu")
    assert count_flops(lambda: style_of_pairs(layers, crops)) == 3 * (first + sum(conv) + sum(gram))


def test_relative_difference():
    a = torch.tensor([[1.0, 0.0, 2.0]])
    assert relative_difference(a, a) == 0
    assert relative_difference(a * 1.5, a) == pytest.approx(0.5)
    assert relative_difference(a, a + torch.tensor([0.0, 1.0, 0.0])) == 1
    assert relative_difference(a + torch.tensor([0.0, 1e-9, 0.0]), a) == math.inf
    assert relative_difference(a * math.nan, a) == relative_difference(a[:, :2], a) == math.inf


def test_seconds_of_a_pass_are_parted_at_the_last_panorama_and_the_last_reference(monkeypatch):
    """Two panoramas of 3 s, three references of 1 s, 5 s for what comes after: 8 s of 14 are the two panoramas' own."""
    clock = SimpleNamespace(now=100.0)
    clock.perf_counter = lambda: clock.now
    for module in (cost, scoring_pass):
        monkeypatch.setattr(module, "time", clock)

    def pass_of(items, references, config, networks, on_progress):
        for done in range(1, 6):
            clock.now += 3 if done <= 2 else 1
            on_progress(done, 5)
        clock.now += 5

    monkeypatch.setattr(scoring_pass, "score_panoramas", pass_of)
    told, config = [], MetricsConfig(device="cpu", batch=2)
    row = scoring_pass.score_pass(["a", "b"], ["c"] * 3, config, None, lambda *each: told.append(each))
    assert (row["panoramas"], row["references"], row["seconds"]) == (2, 3, 14)
    assert (row["seconds_panoramas"], row["seconds_references"], row["seconds_sets"]) == (6, 3, 5)
    assert row["seconds_per_panorama"] == (14 - 3) / 2
    assert [what for what, _ in told] == [
        *(f"panorama, {i} of 2" for i in (1, 2)),
        *(f"reference, {i} of 3" for i in (1, 2, 3)),
    ]


def test_the_metrics_are_those_of_the_configuration():
    chosen = compose_plan(["experiment=table1", "metrics=mini"]).metrics
    ours = MetricsConfig(crop=128, device=chosen["device"])
    assert MetricsConfig(**chosen) == ours


def colour_moments(crops: list[np.ndarray]) -> Tensor:
    values = np.stack(crops).astype(np.float32) / 255
    return torch.from_numpy(np.concatenate([values.mean((1, 2)), values.std((1, 2))], axis=1))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Words for the quickest run there is: three crops, without Inception and CLIP, which take long to load."""
    quick = {"inception": FeatureNetwork("colour moments", colour_moments), "clip": None}
    monkeypatch.setattr(scoring, "load_networks", lambda config: load_networks(config) | quick)
    monkeypatch.setattr(scoring, "ASPECT", 3)
    monkeypatch.setattr(scoring, "REFERENCES", 9)
    monkeypatch.setattr(scoring, "COMPARED", 1)
    return ["--counts", "1", "2", "--height", str(SIZE), "--device", "cpu"]


def rows_of(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.network
def test_the_command_end_to_end(few, tmp_path, capsys):
    assert main([*few, "--pairs", "2", "--out", str(tmp_path), "--name", "few"]) == 0
    compared, passed = (rows_of(tmp_path, "few")[part] for part in (slice(4), slice(4, None)))
    assert [(row["comparison"], row["sampler"]) for row in compared] == [
        (name, side) for name in NAMES for side in ("ours", "released")
    ]
    for row in compared:
        assert row["equal"] == "true" and 0 <= float(row["difference"]) <= float(row["tolerance"]) == 1e-4
        assert float(row["ratio_min"]) <= float(row["ratio"]) <= float(row["ratio_max"])
        assert row["runs"] == "2" and row["panoramas"] == "1" and (row["height"], row["width"]) == ("32", "96")
    for ours, released in (compared[:2], compared[2:]):
        ratio = float(released["seconds"]) / float(ours["seconds"])
        assert 0.2 < float(ours["ratio"]) / ratio < 5  # theirs over ours, not the reverse
        assert float(ours["mean_distance"]) == pytest.approx(float(released["mean_distance"]), rel=1e-4)
        assert float(ours["mean_distance"]) > 0
    assert [(row["comparison"], row["panoramas"]) for row in passed] == [
        ("references alone", "0"),
        ("all metrics", "1"),
        ("all metrics", "2"),
    ]
    for row in passed[1:]:
        parts = sum(float(row[f"seconds_{part}"]) for part in ("panoramas", "references", "sets"))
        assert float(row["seconds"]) == pytest.approx(parts) and row["references"] == "9"
        assert float(row["seconds_per_panorama"]) == pytest.approx(
            (float(row["seconds"]) - float(row["seconds_references"])) / int(row["panoramas"])
        )
    about = json.loads((tmp_path / "few.json").read_text())
    assert about["command"].startswith("python -m experiments.benchmarks.scoring --counts 1 2 --height 32")
    assert set(about["networks"]) >= {"inception", *NAMES} and "revision" in about["git"]
    told = capsys.readouterr()
    lines = [line.split() for line in told.out.splitlines()]
    assert ["intra_style", "released"] in [line[:2] for line in lines]
    assert ["all", "metrics", "2", "9"] in [line[:4] for line in lines] and "few.csv" in told.out
    labels = 2 * 2 * (1 + 2) + 2 + (1 + 2) + 3 * 9  # comparisons, warm-up, panoramas, references
    assert f"[{labels}/{labels}] reference, 9 of 9" in told.err and "left" in told.err


@pytest.mark.network
def test_a_wrong_distance_makes_its_rows_void_and_no_other(few, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(intra, "style_of_pairs", lambda *each: [1.01 * value for value in style_of_pairs(*each)])
    assert main([*few, "--pairs", "1", "--out", str(tmp_path), "--name", "few"]) == 1
    lpips_rows, style_rows = (rows_of(tmp_path, "few")[part] for part in (slice(2), slice(2, 4)))
    for row in style_rows:
        assert row["equal"] == "false" and row["ratio"] == row["ratio_min"] == row["ratio_max"] == ""
        assert float(row["difference"]) == pytest.approx(0.01 / 1.01, rel=0.01) and float(row["seconds"]) > 0
    assert all(row["equal"] == "true" and float(row["ratio"]) > 0 for row in lpips_rows)
    assert capsys.readouterr().err.splitlines()[-1] == (
        "void: intra_style: distances differ by 9.9e-03 of themselves (tolerance 1e-04)"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--counts", "4", "0"], "--counts 0: use 1 or more"),
        (["--counts", "many"], "--counts"),
        (["--counts"], "--counts"),
        (["--pairs", "0"], "--pairs 0: use 1 or more"),
        (["--height", "8"], "--height 8: use 16 or more"),
        (["--count", "3"], "--count"),
        (["--device", "nowhere"], "device=nowhere"),
        (["--name", "a/b"], "--name a/b"),
        (["--out", __file__], "--out"),
    ],
)
def test_mistakes_are_refused_in_one_line(words, said, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1


def test_pictures_are_whole_and_differ(tmp_path):
    items = scoring.write_pictures(tmp_path, "panorama", 8, 32, 192)
    assert items[7] == PanoramaImage("prompt 1", 1, "panorama", tmp_path / "panorama_7.png")
    images = [np.asarray(Image.open(item.path)) for item in items]
    assert all(image.shape == (32, 192, 3) for image in images)
    assert all((a != b).mean() > 0.9 for a, b in combinations(images, 2))


def test_weights_that_cannot_be_had_are_told_in_one_line(few, tmp_path, capsys, monkeypatch):
    def refuse(config):
        raise UsageError("vgg16 cannot be had")

    monkeypatch.setattr(scoring, "load_networks", refuse)
    assert main([*few, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: vgg16 cannot be had\n" and not list(tmp_path.iterdir())
