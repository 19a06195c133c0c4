"""Runs of the tiny random model: composed by Hydra as on the command line, made in a temporary folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.plan.plan import Plan
from tests.experiments.composing import compose_plan, tiny_backbone


@pytest.fixture(scope="session")
def tiny_settings(tiny_folder: Path) -> list[str]:
    """Overrides for two methods, two prompts, two seeds and two reference squares of 64 px; half a second in all."""
    return [
        "method=multidiffusion",
        "+method@baselines.blended_latent=blended_latent",
        *tiny_backbone(tiny_folder),
        "metrics=mini",
        "steps=3",
        "prompts.texts=[hills by the sea,a city]",
        "seeds.count=2",
        "reference.count=1",
        "tracking=disabled",
        "shared_dir=null",
    ]


@pytest.fixture
def compose(tiny_settings: list[str], tmp_path: Path) -> Callable[..., Plan]:
    """compose(*overrides) -> plan of the tiny run in tmp_path / "run", which shares in tmp_path / "shared"."""

    def plan(*overrides: str) -> Plan:
        own = [f"run_dir={tmp_path / 'run'}", f"shared_dir={tmp_path / 'shared'}"]
        return compose_plan([*tiny_settings, *own, *overrides])

    return plan


@pytest.fixture
def known_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that follow from the seed alone, so that no network's weights are needed to test what becomes of them."""
    from experiments.metrics import networks, score

    def score_panoramas(
        items, reference, config, networks, on_progress=None, cache=None, against=None, paired=True, saved=None
    ):
        rows, scores, replicates = [], [], []
        for item in items:
            assert item.path.is_file()
            rows.append(
                {"method": item.method, "prompt": item.prompt, "seed": item.seed, "intra_lpips": 0.5 + item.seed / 8}
            )
        for method in dict.fromkeys(item.method for item in items):
            for prompt in ("all", *dict.fromkeys(item.prompt for item in items)):
                common = {"method": method, "prompt": prompt, "network": "a network"}
                n = sum(item.method == method and prompt in ("all", item.prompt) for item in items)
                scores.append(common | {"metric": "intra_lpips", "value": 0.5625, "stderr": 0.03, "n": n})
                scores.append(common | {"metric": "fid", "value": 123.456, "stderr": None, "n": n})
            for replicate in range(2):
                block = {"method": method, "replicate": replicate, "metric": "fid", "network": "a network"}
                replicates.append(block | {"value": 123.0 + replicate, "n": 2})
        return score.Scored(rows, scores, replicates)

    monkeypatch.setattr(networks, "load_networks", lambda config: None)
    monkeypatch.setattr(networks, "find_networks", lambda config: None)
    monkeypatch.setattr(score, "score_panoramas", score_panoramas)
