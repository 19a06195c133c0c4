"""What is measured once and for all, and what makes another entry of the cache."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from experiments.metrics import measure as module
from experiments.metrics.cache import FeatureCache
from experiments.metrics.clip_network import ClipNetwork, folder_clip
from experiments.metrics.coherence import PairNetwork
from experiments.metrics.config import MetricsConfig
from experiments.metrics.features import INCEPTION
from experiments.metrics.inception import FeatureNetwork
from experiments.metrics.measure import BoundMeasurement, ImageFile, Networks, PanoramaImage, measure, measurements
from experiments.metrics.metric import Measurement
from experiments.metrics.score import score_panoramas

CHOSEN = "fid kid giqa clip_score intra_lpips intra_style layout_lpips".split()
CONFIG = MetricsConfig(metrics=CHOSEN, crop=32, batch=3, giqa_neighbours=2, device="cpu")


@dataclass
class Counting:
    """Networks one can follow, and how many crops each has seen."""

    crops: list[str] = field(default_factory=list)

    def embed(self, crops: list[np.ndarray]) -> Tensor:
        self.crops += ["inception"] * len(crops)
        return torch.from_numpy(np.stack([crop.mean((0, 1)) / 255 for crop in crops]).astype(np.float32))

    def inception(self) -> FeatureNetwork:
        return FeatureNetwork("mean colour", self.embed)

    def pairs(self, name: str) -> PairNetwork:
        return PairNetwork(f"colours for {name}", lambda: ColourDistance(name, self.crops))

    def networks(self, clip: ClipNetwork) -> Networks:
        lpips = self.pairs("intra_lpips")  # of two metrics: Intra-LPIPS and Layout-LPIPS
        return {"lpips": lpips, "style": self.pairs("intra_style"), "inception": self.inception(), "clip": clip}


class ColourDistance:
    """A perceptual distance of mean colours."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self.name, self.network, self.seen = name, f"colours for {name}", seen
        self.trunk = nn.Linear(1, 1)

    def features(self, images: Tensor) -> list[Tensor]:
        self.seen += [self.name] * len(images)
        return [images.mean((2, 3))]

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        return (a[0] - b[0]).square().sum(1)


@pytest.fixture
def images(tmp_path, picture) -> list[PanoramaImage]:
    """Two methods, two prompts, two seeds, panoramas of three crops."""
    found = []
    for index in range(8):
        path = tmp_path / f"{index}.png"
        Image.fromarray(picture(index, 32, 96)).save(path)
        found.append(PanoramaImage(("p", "q")[index // 2 % 2], index % 2, ("a", "b")[index // 4], path))
    return found


def refuse() -> None:
    pytest.fail("a network was loaded")


def test_a_second_pass_loads_no_network_and_gives_the_same_bits(images, clip_folder, tmp_path) -> None:
    counting, cache = Counting(), FeatureCache(tmp_path / "features")
    networks = counting.networks(folder_clip(clip_folder, torch.device("cpu")))
    plain = score_panoramas(images, images, CONFIG, networks)
    first = score_panoramas(images, images, CONFIG, networks, cache=cache)
    assert first == plain
    unloadable = {name: replace(networks[name], load=refuse) for name in ("lpips", "style", "clip")}
    unloadable["inception"] = replace(networks["inception"], embed=lambda crops: refuse())
    again = score_panoramas(images, images, replace(CONFIG, batch=5), unloadable, cache=FeatureCache(cache.folder))
    assert again == first
    some = "kid mini_clip_score intra_lpips intra_style_sum layout_lpips".split()
    assert {row["metric"] for row in again.scores} >= set(some)
    # an image is measured once, also where it is panorama and reference: three crops for each intra metric, one else
    counting.crops.clear()
    score_panoramas(images, images, CONFIG, networks, cache=FeatureCache(tmp_path / "empty"))
    assert [counting.crops.count(name) for name in ("inception", "intra_lpips", "intra_style")] == [8, 48, 24]


def test_only_new_images_are_measured(images, clip_folder, tmp_path) -> None:
    counting, cache = Counting(), FeatureCache(tmp_path / "features")
    networks = counting.networks(folder_clip(clip_folder, torch.device("cpu")))
    score_panoramas(images[:5], [], CONFIG, networks, cache=cache)
    counting.crops.clear()
    score_panoramas(images, [], CONFIG, networks, cache=cache)
    assert [counting.crops.count(name) for name in ("inception", "intra_lpips", "intra_style")] == [3, 18, 9]


def seen(
    cache: FeatureCache,
    image: PanoramaImage,
    config: MetricsConfig = CONFIG,
    label: str = "net",
    fingerprint: str = "",
    measurement: Measurement = INCEPTION,
) -> int:
    """How many crops the Inception stand-in was shown for one image."""
    counting = Counting()
    wanted = [BoundMeasurement(measurement, config, FeatureNetwork(label, counting.embed, fingerprint))]
    assert len(list(measure([image], wanted, cache))) == 1
    return len(counting.crops)


def test_whatever_decides_the_values_makes_another_entry(images, tmp_path) -> None:
    cache, image = FeatureCache(tmp_path / "features"), images[0]
    assert (seen(cache, image), seen(cache, image)) == (1, 0)
    for changed in (
        {"image": replace(image, prompt="another")},
        {"image": replace(image, seed=7)},
        {"image": replace(image, path=images[1].path)},
        {"config": replace(CONFIG, crop=16)},
        {"config": replace(CONFIG, seed=1)},
        {"label": "another net"},
        {"fingerprint": "other weights"},
        {"measurement": replace(INCEPTION, version=-1)},
    ):
        given = {"image": image} | changed
        assert (seen(cache, **given), seen(cache, **given)) == (1, 0), changed


def test_what_does_not_decide_the_values_makes_none(images, tmp_path) -> None:
    cache, image = FeatureCache(tmp_path / "features"), images[0]
    assert seen(cache, image) == 1
    copy = tmp_path / "elsewhere.png"
    copy.write_bytes(image.path.read_bytes())
    assert seen(cache, replace(image, method="c", path=copy)) == 0
    other = replace(CONFIG, device="cuda", batch=1, giqa_neighbours=3, replicates=2, metrics=["fid"])
    assert seen(cache, image, other) == 0


def test_no_two_measurements_of_an_image_share_an_entry(images, clip_folder) -> None:
    networks = Counting().networks(folder_clip(clip_folder, torch.device("cpu")))
    keys = {
        module.cache_key(each, ImageFile(image, image.path.read_bytes()))
        for image in images
        for each in measurements(CONFIG, networks)
    }
    assert len(keys) == 5 * len(images)


def test_intra_metrics_do_not_depend_on_prompt_and_seed(images, tmp_path) -> None:
    config = replace(CONFIG, metrics=["intra_lpips"])
    counting, cache = Counting(), FeatureCache(tmp_path / "features")
    networks = {"lpips": counting.pairs("intra_lpips")}
    score_panoramas([images[0]], [], config, networks, cache=cache)
    counting.crops.clear()
    score_panoramas([replace(images[0], prompt="another", seed=9)], [], config, networks, cache=cache)
    assert counting.crops == []
    score_panoramas([images[0]], [], replace(config, crop=16), networks, cache=cache)
    assert len(counting.crops) == 12  # two rows of six


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def test_damaged_entries_are_measured_again(images, clip_folder, tmp_path) -> None:
    counting, cache = Counting(), FeatureCache(tmp_path / "features")
    networks = counting.networks(folder_clip(clip_folder, torch.device("cpu")))
    first = score_panoramas(images, [], CONFIG, networks, cache=cache)
    entries = [path for path in cache.folder.rglob("*") if path.is_file()]
    assert len(entries) == 5 * len(images)
    for path in entries:
        damage(path)
    counting.crops.clear()
    assert score_panoramas(images, [], CONFIG, networks, cache=cache) == first
    assert counting.crops.count("inception") == 8 and counting.crops.count("intra_lpips") == 48
    counting.crops.clear()
    assert score_panoramas(images, [], CONFIG, networks, cache=cache) == first
    assert counting.crops == []
