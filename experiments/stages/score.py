"""Stage 2: score the panoramas of a plan that are on disk, into the files that tables and figures are made of."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.common.progress import report_images, say_step
from experiments.panoramas.index import Index, Panorama, other_precision
from experiments.plan.plan import Plan
from experiments.plan.references import made_by
from experiments.results.study import study_of
from experiments.stages.score_files import write_scores
from experiments.stages.unwritable import unwritable_line
from syncdiffusion.errors import UsageError

if TYPE_CHECKING:
    from experiments.metrics.config import MetricsConfig
    from experiments.metrics.reference_features import SavedFeatures
    from experiments.metrics.score import Scored


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
        plan.shared_noise,
        saved_features(plan),
    )
    if cache.failure is not None:
        print(f"score: features are not kept: {unwritable_line(cache.failure, plan)}", file=sys.stderr)
    if changed := index.changed():
        raise UsageError(f"{changed[0].png}: replaced or damaged while it was scored; give the same command again")
    write_scores(plan.folder, study_of(plan), index, scored)
    for line in without_number(config, scored):
        print(f"score: {line}", file=sys.stderr)
    keep_features(plan, index, scored)


def without_number(config: MetricsConfig, scored: Scored) -> list[str]:
    """A line on the metrics that were asked for and found nothing to measure, for each reason."""
    from experiments.metrics.catalogue import DEFINED

    found = {row["metric"] for row in scored.scores}
    lacking: dict[str, list[str]] = {}
    for name, metric in DEFINED.items():
        if name in config.metrics and not any(column.name in found for column in metric.columns):
            lacking.setdefault(metric.takes, []).append(name)
    return [f"without a number: {', '.join(names)}; wanted: {takes}" for takes, names in lacking.items()]


def saved_features(plan: Plan) -> SavedFeatures | None:
    """What the file of reference features holds, where the plan goes by it."""
    from experiments.metrics.reference_features import read_features

    if plan.reference_features is None or plan.references or not plan.reference_features.exists():
        return None
    say_step("score", f"reference features are read from {plan.reference_features}")
    return read_features(plan.reference_features)


def keep_features(plan: Plan, index: Index, scored: Scored) -> None:
    """Write the file of reference features that the plan names, where it is not there and they are complete."""
    from experiments.metrics.reference_features import save_features

    path = plan.reference_features
    if path is None or path.exists() or not scored.references:
        return
    if not index.references or {each.unit for each in index.references} != set(plan.references):
        say_step("score", f"reference images are missing: {path} is not written")
        return
    first = plan.references[0]
    made = {} if plan.sources else made_by(first.method, first.settings, plan.backbone)
    save_features(path, scored.references, scored.references_facts, made)
    say_step("score", f"reference features are written to {path}")
    left = [name for name, each in scored.references.items() if each.features.dtype == object]
    if left:
        print(f"score: not in it: {', '.join(left)}, as reference pictures have different sizes", file=sys.stderr)


def check_index(plan: Plan, index: Index) -> None:
    missing = len(index.missing)
    if missing and plan.sources and index.panoramas:
        raise_or_tell(plan, f"{missing} pictures could not be read")
        return
    if not index.panoramas:
        other = None if plan.sources else other_precision(plan)
        advice = "make them with stage=generate"
        if other is not None:
            advice = f"those there are in {other}: give backbone.precision={other}"
        raise UsageError(f"run_dir={plan.folder}: no panorama of these settings there; {advice}")
    if missing:
        raise_or_tell(
            plan,
            f"{missing} panoramas or reference images are missing, or of other settings or code",
            "make them with stage=generate",
        )
    if len(index.fingerprints) > 1:
        raise UsageError(f"run_dir={plan.folder}: panoramas of two models; make them anew with stage=generate")


def raise_or_tell(plan: Plan, lack: str, advice: str = "mend them or leave strict out") -> None:
    """Refuse to score without all pictures where the plan is strict, else say that the others are scored."""
    if plan.strict:
        raise UsageError(f"strict=true: {lack}; {advice}")
    print(f"score: {lack}; the others are scored", file=sys.stderr)
