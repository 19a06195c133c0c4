"""Results that were never measured: the rows of a real experiment with numbers drawn by a seeded generator.

They follow one law, so that what is drawn from them can be held against it: synchronising lowers Intra-LPIPS and,
much less, Layout-LPIPS, and raises KID and seconds, the more the stronger it is.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from experiments.common.files import write_whole
from experiments.panoramas.store import Unit
from experiments.plan.plan import Entry
from experiments.results.study import Results, Study, study_of, write_study
from tests.experiments.composing import compose_plan

REPLICATES = 4
METRIC_COLUMNS = "kid fid mini_clip_score intra_lpips intra_style_sum intra_style_mean layout_lpips".split()


def synthetic_results(*overrides: str) -> Results:
    """Results of the plan of these overrides, such as "experiment=table1"."""
    plan = compose_plan(overrides)
    study = study_of(plan)
    entries = {entry.label: entry for entry in plan.entries}
    panoramas = pd.DataFrame([panorama_row(unit, entries[unit.label]) for unit in plan.units])
    return Results(study, panoramas, score_rows(study, panoramas), replicate_rows(study))


def pull_of(entry: Entry) -> tuple[float, int]:
    """How much a row synchronises, from 0 to 1, and its gradient steps."""
    s = entry.settings
    if "weight" not in s:
        return 0.0, 0
    first = s["steps"] if s["first_n"] is None else s["first_n"]
    active = sum((i + 1) % s["every_n"] == 0 and i < first for i in range(s["steps"])) if s["weight"] else 0
    return s["weight"] / (s["weight"] + 5) * (1 - 0.7**active), active


def panorama_row(unit: Unit, entry: Entry) -> dict[str, object]:
    pull, active = pull_of(entry)
    of_noise, own = (
        np.random.default_rng([unit.seed, *unit.prompt.encode()]),
        np.random.default_rng([unit.seed, *f"{unit.label} {unit.prompt}".encode()]),
    )
    apart = 0.06 if entry.method == "blended_latent" else 0.0
    lpips = 0.45 + 0.05 * of_noise.standard_normal() - 0.12 * pull - apart / 2 + 0.012 * own.standard_normal()
    style = 0.004 * np.exp(0.5 * of_noise.standard_normal() - 1.5 * pull + 0.2 * own.standard_normal())
    return {
        "method": unit.label,
        "prompt": unit.prompt,
        "seed": unit.seed,
        "seconds": (8 + 2 * active + 5 * (apart > 0)) * (1 + 0.02 * own.standard_normal()),
        "peak_memory_bytes": 2**30 * (1 + (active > 0)),
        "device": "cpu",
        "file": unit.png(Path()).as_posix(),
        "key": f"{unit.label}/{unit.prompt}/{unit.seed}",
        "mini_clip_score": 60 + 3 * of_noise.standard_normal() - 1.5 * pull - 60 * apart + own.standard_normal(),
        "intra_lpips": lpips,
        "intra_style_sum": 15 * style,
        "intra_style_mean": style,
        "layout_lpips": 0.4 + 0.03 * of_noise.standard_normal() - 0.02 * pull + 0.01 * own.standard_normal(),
    }


def score_rows(study: Study, panoramas: pd.DataFrame) -> pd.DataFrame:
    """Per-panorama metrics as means, and KID and FID of the whole set; by prompt too, where a metric has it."""
    rows = []
    for label, mine in panoramas.groupby("method", sort=False):
        for metric in METRIC_COLUMNS:
            for prompt in ("all", *study.prompts) if metric in panoramas else ("all",):
                chosen = mine if prompt == "all" else mine[mine["prompt"] == prompt]
                row = {"method": label, "prompt": prompt, "metric": metric, "n": len(chosen), "network": "a network"}
                if metric in panoramas:
                    row |= {"value": chosen[metric].mean(), "stderr": chosen[metric].sem()}
                else:
                    row |= {"value": set_value(study, label, metric), "stderr": 0.004 if metric == "kid" else np.nan}
                rows.append(row)
    return pd.DataFrame(rows)["method prompt metric value stderr n network".split()]


def replicate_rows(study: Study) -> pd.DataFrame:
    rows = []
    for row in study.rows:
        for metric in ("kid", "fid"):
            for replicate in range(min(REPLICATES, study.seeds["count"])):
                shared = 0.003 * np.random.default_rng(replicate).standard_normal()
                own = 0.001 * np.random.default_rng([replicate, *row.label.encode()]).standard_normal()
                value = set_value(study, row.label, metric) + shared + own
                common = {"method": row.label, "replicate": replicate, "metric": metric, "value": value}
                rows.append(common | {"n": len(study.prompts), "network": "a network"})
    return pd.DataFrame(rows)


def set_value(study: Study, label: str, metric: str) -> float:
    row = study.row(label)
    pull, _ = pull_of(Entry(label, row.method, row.settings))
    value = 0.02 + 0.015 * pull + (0.03 if row.method == "blended_latent" else 0)
    return value if metric == "kid" else 100 + 1000 * value


def write_results(folder: Path, results: Results) -> Path:
    """The four files that read_results reads."""
    write_study(folder, results.study)
    for name in ("panoramas", "scores", "replicates"):
        write_whole(folder / f"{name}.csv", getattr(results, name).to_csv(index=False))
    return folder
