"""The scoring pass: what is grouped with what, and that no number depends on order or company."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.metrics.cache import FeatureCache
from experiments.metrics.catalogue import METRICS
from experiments.metrics.clip_network import folder_clip
from experiments.metrics.coherence import pair_distances
from experiments.metrics.config import MetricsConfig
from experiments.metrics.crops import grid_crops, load_image, random_crop
from experiments.metrics.definitions.clip_score import clip_scores
from experiments.metrics.definitions.fid import fid, fid_difference
from experiments.metrics.definitions.giqa import giqa_difference, giqa_scores
from experiments.metrics.definitions.kid import kid, kid_difference
from experiments.metrics.inception import FeatureNetwork
from experiments.metrics.measure import Networks
from experiments.metrics.networks import load_networks
from experiments.metrics.score import PanoramaImage, Scored, score_panoramas, seed_blocks
from syncdiffusion.errors import UsageError

PROMPTS = ("a mountain", "a forest")


def colour_moments(crops: list[np.ndarray]) -> torch.Tensor:
    """A feature network one can follow: mean and deviation of each channel."""
    values = np.stack(crops).astype(np.float32) / 255
    return torch.from_numpy(np.concatenate([values.mean((1, 2)), values.std((1, 2))], axis=1))


@pytest.fixture(scope="module")
def bundle(clip_folder) -> Networks:
    clip = folder_clip(clip_folder, torch.device("cpu"))
    return {"inception": FeatureNetwork("colour moments", colour_moments), "clip": clip}


@pytest.fixture
def config() -> MetricsConfig:
    return MetricsConfig(
        metrics=["fid", "kid", "giqa", "clip_score"], crop=32, batch=3, giqa_neighbours=4, device="cpu"
    )


def save(folder: Path, name: str, image: np.ndarray) -> Path:
    path = folder / f"{name}.png"
    Image.fromarray(image).save(path)
    return path


@pytest.fixture
def items(tmp_path, picture) -> list[PanoramaImage]:
    return [
        PanoramaImage(prompt, seed, method, save(tmp_path, f"{m}{p}{seed}", picture(100 * m + 10 * p + seed, 32, 112)))
        for m, method in enumerate(("joint", "single"))
        for p, prompt in enumerate(PROMPTS)
        for seed in range(6)
    ]


@pytest.fixture
def reference(tmp_path, picture) -> list[PanoramaImage]:
    return [
        PanoramaImage(prompt, seed, "squares", save(tmp_path, f"r{p}{seed}", picture(900 + 10 * p + seed, 32, 32)))
        for p, prompt in enumerate(PROMPTS)
        for seed in range(4)
    ]


def embedded(images: list[PanoramaImage]) -> np.ndarray:
    crops = [random_crop(load_image(i.path), 32, i.prompt, i.seed) for i in images]
    return colour_moments(crops).double().numpy()


def by_key(scores: list[dict]) -> dict:
    return {(row["method"], row["prompt"], row["metric"]): row for row in scores}


def test_scores_equal_the_metrics_called_by_hand(items, reference, config, bundle) -> None:
    scored = score_panoramas(items, reference, config, bundle)
    rows, scores = scored.rows, scored.scores
    found = by_key(scores)
    for method in ("joint", "single"):
        for prompt in ("all", *PROMPTS):
            mine = [i for i in items if i.method == method and prompt in ("all", i.prompt)]
            x = embedded(mine)
            y = embedded([i for i in reference if prompt in ("all", i.prompt)])
            row = found[method, prompt, "fid"]
            assert row["value"] == pytest.approx(fid(x, y), rel=1e-9)
            assert (row["n"], row["stderr"], row["network"]) == (len(mine), None, "colour moments")
            names = [i.prompt for i in mine], [i.prompt for i in reference if prompt in ("all", i.prompt)]
            row, expected = found[method, prompt, "kid"], kid(x, y, *names)
            assert (row["value"], row["stderr"]) == pytest.approx((expected.value, expected.stderr), rel=1e-6)
            assert found[method, prompt, "giqa"]["value"] == pytest.approx(giqa_scores(x, y, 4).mean())

            crops = [random_crop(load_image(i.path), 32, i.prompt, i.seed) for i in mine]
            similar = clip_scores(bundle["clip"], crops, [i.prompt for i in mine], 16)
            row = found[method, prompt, "mini_clip_score"]
            assert row["value"] == pytest.approx(similar.mean(), abs=1e-3)
            assert row["stderr"] == pytest.approx(similar.std(ddof=1) / np.sqrt(len(mine)), abs=1e-3)
    assert [(r["method"], r["prompt"], r["seed"]) for r in rows] == [(i.method, i.prompt, i.seed) for i in items]
    assert {row["metric"] for row in scores} <= set(METRICS)
    assert [row["prompt"] for row in scores[:8]] == ["all"] * 4 + [PROMPTS[0]] * 4


def test_order_and_company_change_nothing(items, reference, config, bundle) -> None:
    scores = score_panoramas(items, reference, config, bundle).scores
    keyed = by_key(score_panoramas(items[::-1], reference[::-1], config, bundle).scores)
    for key, row in by_key(scores).items():
        # float32 rounding of the embeddings in other batches
        assert keyed[key]["value"] == pytest.approx(row["value"], rel=1e-4, abs=1e-4)
    alone = [item for item in items if item.method == "single"]
    fewer = score_panoramas(alone, reference, config, bundle).scores
    for key, row in by_key(fewer).items():
        assert row["value"] == pytest.approx(by_key(scores)[key]["value"], rel=1e-4, abs=1e-4)


def rounded_by_company(crops: list[np.ndarray]) -> torch.Tensor:
    """A network whose last digits depend on how many crops it sees at once, as a real one's do."""
    return colour_moments(crops) * (1 + 1e-6 * len(crops))


class Stopped(BaseException):
    """As a signal, which no library catches."""


@pytest.mark.parametrize("seen", [1, 4, 5, 17, 25])
def test_an_interrupted_pass_ends_with_the_same_numbers(items, reference, config, bundle, tmp_path, seen) -> None:
    """To the last bit: after `seen` images, and beside panoramas that another run has already measured."""
    networks = {**bundle, "inception": FeatureNetwork("rounded by company", rounded_by_company)}
    whole = score_panoramas(items, reference, config, networks, cache=FeatureCache(tmp_path / "quiet"))

    def stop(done: int, total: int) -> None:
        if done == seen:
            raise Stopped

    cache = FeatureCache(tmp_path / "stopped")
    with pytest.raises(Stopped):
        score_panoramas(items, reference, config, networks, stop, cache)
    assert score_panoramas(items, reference, config, networks, cache=FeatureCache(cache.folder)) == whole
    another = FeatureCache(tmp_path / "another")
    score_panoramas(items[::-3], reference[1::2], replace(config, batch=7), networks, cache=another)
    assert score_panoramas(items, reference, config, networks, cache=another) == whole
    assert score_panoramas(items, reference, config, networks) == whole


def test_what_n_does_not_allow_has_no_row(items, reference, config, bundle) -> None:
    one = [items[0]]
    scores = score_panoramas(one, reference, config, bundle).scores
    assert {row["metric"] for row in scores} == {"mini_clip_score"}
    assert all(row["stderr"] is None and row["n"] == 1 for row in scores)
    some = score_panoramas(items, reference[:3], config, bundle, against="joint")
    scores = some.scores
    # three references of one prompt: of all prompts there is nothing to hold the panoramas against
    assert {row["prompt"] for row in scores if row["metric"] == "fid"} == {PROMPTS[0]}
    assert not some.replicates and not some.swaps
    assert "giqa" not in {row["metric"] for row in scores}  # three references for four neighbours
    without = score_panoramas(items, [], config, bundle)
    assert {row["metric"] for row in without.scores} == {"mini_clip_score"} and without.replicates == []
    assert score_panoramas([], [], config, bundle) == Scored([], [], [])


def test_pairs_are_held_against_the_references_of_their_prompts_alone(items, reference, config, bundle) -> None:
    """A method without the second prompt: what the other's images or references of it are like is no matter."""
    lacking = [i for i in items if i.method == "joint" or i.prompt == PROMPTS[0]]
    first = [[i for i in some if i.prompt == PROMPTS[0]] for some in (items, reference)]
    found = score_panoramas(lacking, reference, config, bundle, against="joint").swaps
    expected = score_panoramas(*first, config, bundle, against="joint").swaps
    assert len(found) == 3 and found == expected


def test_progress_counts_every_image_once(items, reference, config, bundle) -> None:
    seen: list[tuple[int, int]] = []
    score_panoramas(items, reference, config, bundle, lambda done, total: seen.append((done, total)))
    total = len(items) + len(reference)
    assert seen == [(done, total) for done in range(1, total + 1)]


def test_an_image_smaller_than_the_crop_is_refused(items, reference, bundle) -> None:
    with pytest.raises(UsageError, match="metrics.crop=64"):
        score_panoramas(items, reference, MetricsConfig(crop=64), bundle)


@pytest.mark.network
def test_intra_metrics_of_real_networks(tmp_path, picture) -> None:
    """The rows are the means and sums over a panorama's own pairs; an even panorama scores lower."""
    config = MetricsConfig(metrics=["intra_lpips", "intra_style"], crop=32, device="cpu")
    try:
        networks = load_networks(config)
    except UsageError as error:
        pytest.skip(str(error))
    tile = picture(1, 32, 32)
    even, uneven = np.concatenate([tile] * 3, axis=1), picture(2, 32, 96)
    items = [
        PanoramaImage("p", 0, "even", save(tmp_path, "even", even)),
        PanoramaImage("p", 0, "uneven", save(tmp_path, "uneven", uneven)),
        PanoramaImage("p", 0, "square", save(tmp_path, "square", tile)),
    ]
    scored = score_panoramas(items, [], config, networks)
    rows, scores = scored.rows, scored.scores
    assert abs(rows[0]["intra_lpips"]) < 1e-6 and rows[1]["intra_lpips"] > 0.1
    pairs = pair_distances(networks["style"].load(), grid_crops(uneven, 32), 8)
    assert rows[1]["intra_style_sum"] == pytest.approx(pairs.sum(), rel=1e-5)
    assert rows[1]["intra_style_mean"] == pytest.approx(pairs.sum() / 3, rel=1e-5)
    assert rows[2]["intra_lpips"] is None and rows[2]["intra_style_sum"] is None
    assert {row["method"] for row in scores} == {"even", "uneven"}
    assert {row["network"].split()[0] for row in scores} == {"lpips-vgg16", "vgg16"}


@pytest.mark.network
def test_layout_lpips_tells_copies_of_one_layout_from_different_ones(tmp_path, picture) -> None:
    """Six copies of a crop, each in a tint of its own, against six crops that share nothing."""
    config = MetricsConfig(metrics=["intra_lpips", "layout_lpips"], crop=64, device="cpu")
    try:
        networks = load_networks(config)
    except UsageError as error:
        pytest.skip(str(error))
    random, tile = np.random.default_rng(0), picture(1, 64, 64)
    tinted = [tile // 2 + random.integers(0, 128, 3, np.uint8) for _ in range(6)]
    filtered = [(tile * random.uniform(0.5, 1, 3)).astype(np.uint8) for _ in range(6)]  # a gain for each channel
    crops = {"tinted": tinted, "filtered": filtered, "different": [picture(seed, 64, 64) for seed in range(6)]}
    items = [PanoramaImage("p", 0, name, save(tmp_path, name, np.hstack(parts))) for name, parts in crops.items()]
    scored = score_panoramas(items, [], config, networks)
    found = {row["method"]: row for row in scored.rows}
    assert found["tinted"]["layout_lpips"] < 1e-6 < 0.1 < found["tinted"]["intra_lpips"]
    assert found["different"]["layout_lpips"] > 0.2
    assert found["filtered"]["layout_lpips"] < 0.2 * found["different"]["layout_lpips"]
    keyed = by_key(scored.scores)
    for name in crops:
        layout, intra = (keyed[name, "all", metric] for metric in ("layout_lpips", "intra_lpips"))
        assert layout["value"] == found[name]["layout_lpips"] and layout["network"] == intra["network"]


def test_replicates_equal_the_metrics_called_by_hand_on_the_blocks(items, reference, config, bundle) -> None:
    """Six seeds in two blocks of three; both prompts in each; every reference image for all."""
    rows = score_panoramas(items, reference, replace(config, replicates=2), bundle).replicates
    found = {(row["method"], row["replicate"], row["metric"]): row for row in rows}
    assert len(found) == len(rows) == 2 * 2 * 3
    y = embedded(reference)
    for method in ("joint", "single"):
        for replicate, seeds in enumerate(((0, 1, 2), (3, 4, 5))):
            mine = [i for i in items if i.method == method and i.seed in seeds]
            x, names = embedded(mine), ([i.prompt for i in mine], [i.prompt for i in reference])
            expected = {"fid": fid(x, y), "kid": kid(x, y, *names).value, "giqa": giqa_scores(x, y, 4).mean()}
            for metric, value in expected.items():
                row = found[method, replicate, metric]
                assert row["value"] == pytest.approx(value, rel=1e-9)
                assert (row["n"], row["network"]) == (2 * len(seeds), "colour moments")


def test_replicates_of_methods_pair_where_panoramas_are_missing(items, reference, config, bundle) -> None:
    """Blocks {0, 1}, {2, 3}, {4, 5} of four images; what one method lacks moves no seed into another block."""
    config = replace(config, replicates=3)
    whole = score_panoramas(items, reference, config, bundle).replicates
    lacking = [i for i in items if i.method == "joint" or i.seed != 2 or i.prompt != PROMPTS[0]]
    rows = score_panoramas(lacking, reference, config, bundle).replicates
    assert {row["replicate"] for row in rows if row["method"] == "joint"} == {0, 1, 2}
    assert {row["replicate"] for row in rows if row["method"] == "single"} == {0, 2}  # block 1 has three images left
    kept = [row for row in whole if row["method"] == "joint" or row["replicate"] != 1]
    assert [{**row, "value": pytest.approx(row["value"], rel=1e-9)} for row in kept] == rows
    # nor does a method that lacks a seed altogether
    rows = score_panoramas([i for i in items if i.method == "joint" or i.seed], reference, config, bundle).replicates
    assert {row["replicate"] for row in rows if row["method"] == "single"} == {1, 2}


@pytest.mark.parametrize(
    ("seeds", "prompts", "replicates", "expected"),
    [
        ((5, 3, 4, 10, 11), "pq", 2, [{3, 4}, {5, 10}]),
        (range(7), "pq", 5, [{0, 1}, {2, 3}, {4, 5}]),
        (range(10), "pq", 5, [{0, 1}, {2, 3}, {4, 5}, {6, 7}, {8, 9}]),
        (range(23), "p", 5, [{*range(4)}, {*range(4, 8)}, {*range(8, 12)}, {*range(12, 16)}, {*range(16, 20)}]),
        ((0, 1, 2), "pq", 5, []),
        ((0,), "pqr", 2, []),
        ((), "", 2, []),
    ],
)
def test_blocks_are_disjoint_runs_of_equally_many_seeds(seeds, prompts, replicates, expected) -> None:
    items = [PanoramaImage(prompt, seed, "joint", Path()) for prompt in prompts for seed in seeds]
    assert seed_blocks(items, replicates) == expected


def test_swaps_equal_the_differences_called_by_hand_on_the_pairs(items, reference, config, bundle) -> None:
    """What one method lacks is no pair; the one compared with has no row."""
    lacking = [i for i in items if i.method == "joint" or (i.prompt, i.seed) != (PROMPTS[0], 5)]
    rows = score_panoramas(lacking[::-1], reference, config, bundle, against="joint").swaps
    found = {row["metric"]: row for row in rows}
    assert set(found) == {"fid", "kid", "giqa"} and len(rows) == 3
    pairs = [i for i in lacking if i.method == "single"][::-1]
    a = embedded(pairs)
    b = embedded([next(j for j in items if (j.method, j.prompt, j.seed) == ("joint", i.prompt, i.seed)) for i in pairs])
    y, names = embedded(reference), ([i.prompt for i in pairs], [i.prompt for i in reference])
    expected = {
        "fid": fid_difference(a, b, y),
        "kid": kid_difference(a, b, y, *names),
        "giqa": giqa_difference(a, b, y, names[0], 4),
    }
    for metric, difference in expected.items():
        row = found[metric]
        assert (row["method"], row["against"], row["n"], row["prompts"]) == ("single", "joint", 11, 2)
        assert row["difference"] == pytest.approx(difference.value, rel=1e-6)
        assert row["p"] == pytest.approx(difference.p, abs=2e-3)  # random swaps, of pairs in another order
        assert (row["stderr"] is None) == (metric == "fid")
    assert score_panoramas(items, reference, config, bundle).swaps == []
    alone = [i for i in items if i.method == "single"]
    assert score_panoramas(alone, reference, config, bundle, against="joint").swaps == []


def test_kid_wants_two_images_of_every_prompt(items, reference, config, bundle) -> None:
    few = [i for i in items if i.prompt == PROMPTS[0] or i.seed == 0]
    scores = score_panoramas(few, reference, config, bundle).scores
    assert {row["prompt"] for row in scores if row["metric"] == "kid"} == {PROMPTS[0]}
    assert {row["prompt"] for row in scores if row["metric"] == "fid"} == {"all", PROMPTS[0]}


def test_a_feature_that_is_no_number_names_its_file(items, reference, config, bundle, tmp_path) -> None:
    def sometimes(crops: list[np.ndarray]) -> torch.Tensor:
        seen = colour_moments(crops)
        return torch.where(seen == seen.max(), torch.nan, seen) if len(crops) else seen

    networks = bundle | {"inception": FeatureNetwork("half precision", sometimes)}
    cache = FeatureCache(tmp_path / "features")
    for _ in range(2):  # nothing of it is kept
        with pytest.raises(UsageError, match=r"image .*\.png: inception \(half precision\) is no finite number"):
            score_panoramas(items, reference, config, networks, cache=cache)
