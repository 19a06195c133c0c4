"""Stage 2: score the panoramas of a plan that are on disk, into the files that tables and figures are made of."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from experiments.common.progress import report_images, say_step
from experiments.panoramas.index import Index, Panorama
from experiments.plan.plan import Plan
from experiments.results.study import study_of
from experiments.stages.score_files import write_scores
from experiments.stages.unwritable import unwritable_line
from syncdiffusion.errors import UsageError


def score(plan: Plan, index: Index) -> None:
    """Score what is there; only panoramas of the plan's own settings count, whatever else the folder holds.

    Raises:
        UsageError: nothing to score, panoramas missing under `strict`, made by different models, or replaced by others
            while they were scored.
    """
    check_index(plan, index)
    if "torch" not in sys.modules:
        say_step("score", "loading libraries")
    from experiments.metrics.cache import FeatureCache
    from experiments.metrics.config import MetricsConfig
    from experiments.metrics.networks import load_networks
    from experiments.metrics.score import PanoramaImage, score_panoramas

    config = MetricsConfig(**plan.metrics)

    model = {name: plan.backbone[name] for name in ("window", "factor")}

    def images(panoramas: Sequence[Panorama]) -> list[PanoramaImage]:
        found = []
        for unit, png in ((each.unit, each.png) for each in panoramas):
            made = model | {"method": unit.method, "settings": unit.settings}
            found.append(PanoramaImage(unit.prompt, unit.seed, unit.label, png, made))
        return found

    count = len(index.panoramas) + len(index.references)
    say_step("score", f"images to look at: {count}; the first also waits for the networks to be loaded")
    cache = FeatureCache((plan.shared or plan.folder) / "features", index.checksums)
    scored = score_panoramas(
        images(index.panoramas),
        images(index.references),
        config,
        load_networks(config),
        report_images("score"),
        cache,
        plan.compare_with,
    )
    if cache.failure is not None:
        print(f"score: features are not kept: {unwritable_line(cache.failure, plan)}", file=sys.stderr)
    if changed := index.changed():
        raise UsageError(f"{changed[0].png}: replaced or damaged while it was scored; give the same command again")
    write_scores(plan.folder, study_of(plan), index.panoramas, scored)


def check_index(plan: Plan, index: Index) -> None:
    missing = len(index.missing)
    if not index.panoramas:
        raise UsageError(f"run_dir={plan.folder}: no panorama of these settings there; make them with stage=generate")
    if missing and plan.strict:
        raise UsageError(f"strict=true: {missing} panoramas or reference images missing; make them with stage=generate")
    if missing:
        print(f"score: {missing} panoramas or reference images are missing; the others are scored", file=sys.stderr)
    if len(index.fingerprints) > 1:
        raise UsageError(f"run_dir={plan.folder}: panoramas of two models; make them anew with stage=generate")
