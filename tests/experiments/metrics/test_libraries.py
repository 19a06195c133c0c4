"""Metrics that torchmetrics makes, or can be held against it; and a preference model that loads as a CLIP."""

from importlib import import_module
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.metrics.clip_network import ClipNetwork, folder_clip, preference_clip
from experiments.metrics.config import MetricsConfig
from experiments.metrics.crops import grid_crops, random_crop
from experiments.metrics.definitions.clip_iqa import BAD, GOOD, goodness
from experiments.metrics.definitions.clip_score import clip_scores
from experiments.metrics.dists import find_dists, images_of
from experiments.metrics.networks import load_networks
from experiments.metrics.score import PanoramaImage, score_panoramas
from syncdiffusion.errors import UsageError
from tests.metric_networks import load_or_skip

CPU = torch.device("cpu")


@pytest.fixture
def panorama(tmp_path, picture) -> PanoramaImage:
    Image.fromarray(picture(0, 64, 192)).save(tmp_path / "a.png")
    return PanoramaImage("a lake", 0, "m", tmp_path / "a.png")


@pytest.mark.network
def test_intra_dists_is_torchmetrics_own_between_the_squares(panorama, picture):
    from torchmetrics.functional.image.dists import DISTSNetwork

    load_or_skip("lpips_vgg")  # the same VGG-16
    network = find_dists(CPU)
    config = MetricsConfig(metrics=["intra_dists"], crop=64, device="cpu", batch=2)
    scored = score_panoramas([panorama], [], config, {"dists": network})
    squares = images_of(grid_crops(picture(0, 64, 192), 64), CPU)
    assert isinstance(network.loaded, DISTSNetwork)
    expected = [float(network.loaded(squares[i : i + 1], squares[j : j + 1])) for i, j in combinations(range(3), 2)]
    assert scored.rows[0]["intra_dists"] == pytest.approx(np.mean(expected), rel=1e-4)  # float32, other batches
    assert 0 < min(expected) < max(expected) < 1
    same, grey = grid_crops(picture(0, 64, 64), 64)[0], np.full((64, 64, 3), 128, np.uint8)
    nothing, much = network.distances([(same, same), (same, grey)])
    assert abs(nothing) < 1e-5 < 0.2 < much  # rounding of float32


@pytest.mark.network
def test_the_vgg_of_dists_is_the_verified_one():
    trunk = load_or_skip("lpips_vgg").trunk.layers
    network = find_dists(CPU).loaded
    assert torch.equal(network.stage1[0].weight, trunk[0].weight)
    assert torch.equal(network.stage5[-2].weight, trunk[28].weight)
    assert float(network.alpha.sum() + network.beta.sum()) > 0


def test_clip_iqa_is_torchmetrics_number(clip_folder, panorama, picture):
    from torchmetrics.functional.multimodal.clip_iqa import _clip_iqa_compute

    clip = folder_clip(clip_folder, CPU)
    config = MetricsConfig(metrics=["clip_iqa"], crop=64, device="cpu")
    found = score_panoramas([panorama], [], config, {"clip": clip}).rows[0]["mini_clip_iqa"]
    image = clip.embed_images([random_crop(picture(0, 64, 192), 64, "a lake", 0)])
    anchors = clip.embed_texts([GOOD, BAD])
    expected = _clip_iqa_compute(image, anchors, ["quality"], format_as_dict=False)
    assert found == pytest.approx(float(expected), abs=1e-5)  # float32
    assert goodness(anchors[:1], anchors) > 0.5 > goodness(anchors[1:], anchors)


def test_the_clip_score_is_torchmetrics_number(clip_folder, picture, monkeypatch):
    """Its arithmetic, given the same embeddings: its own loading fails with transformers 5 (PROTOCOL.md, section 5)."""
    library = import_module("torchmetrics.functional.multimodal.clip_score")  # a function of its name hides it
    clip = folder_clip(clip_folder, CPU)
    crops, prompts = [picture(seed, 64, 64) for seed in range(3)], ["a lake", "a city", "a lake"]
    features = {"image": clip.embed_images(crops), "text": clip.embed_texts(prompts)}
    monkeypatch.setattr(library, "_get_features", lambda data, modality, *rest: features[modality])
    images = [torch.from_numpy(crop).permute(2, 0, 1) for crop in crops]
    theirs, _ = library._clip_score_update(images, prompts, torch.nn.Identity(), None)
    np.testing.assert_allclose(clip_scores(clip, crops, prompts, 2), theirs.numpy(), atol=1e-3)  # float32 of 100 x


def test_a_preference_model_is_a_clip_of_its_own(tmp_path, panorama, picture):
    import open_clip

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model("RN50", pretrained=None)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "hps.pt")
    network = preference_clip(tmp_path / "hps.pt", CPU, "RN50")
    scored = score_panoramas([panorama], [], MetricsConfig(metrics=["hps"], crop=64, device="cpu"), {"hps": network})
    (row,) = scored.scores[:1]
    assert isinstance(network, ClipNetwork) and network.fingerprint
    assert (row["metric"], row["network"]) == ("hps", "HPSv2 RN50 (hps.pt)")
    _, _, preprocess = open_clip.create_model_and_transforms("RN50", pretrained=None)
    crop = random_crop(picture(0, 64, 192), 64, "a lake", 0)
    with torch.inference_mode():
        image = model.eval().encode_image(preprocess(Image.fromarray(crop))[None])
        text = model.encode_text(open_clip.get_tokenizer("RN50")(["a lake"]))
    assert row["value"] == pytest.approx(100 * float(torch.cosine_similarity(image, text)), abs=1e-3)


def test_without_a_checkpoint_hps_is_refused_in_one_line(tmp_path):
    for file in (None, str(tmp_path / "nowhere.pt")):
        with pytest.raises(UsageError, match="metrics.hps_file=.*: name HPSv2's checkpoint"):
            load_networks(MetricsConfig(metrics=["hps"], hps_file=file, device="cpu"))
    torch.save({"state_dict": {}}, tmp_path / "empty.pt")
    network = preference_clip(tmp_path / "empty.pt", CPU, "RN50")
    with pytest.raises(UsageError, match="holds no weights of RN50"):
        network.embed_text("a lake")
