"""What a page shows, as plain values for its JSON. Text is put in as it is; the page shows it as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.metrics.catalogue import METRICS
from experiments.report.notes import EMBEDDED, apart, closing, one_picture, seeds_told
from experiments.report.page.overlay import windows_of
from experiments.results.numbers import titles
from experiments.results.study import Results, Row, Study

if TYPE_CHECKING:
    import pandas as pd


def page_content(
    results: Results, sections: Sequence[Mapping[str, Any]], images: Mapping[str, str], plots: Sequence[dict[str, str]]
) -> dict[str, Any]:
    """sections: the tables. images: file as in panoramas.csv -> path of its picture, for those that there are."""
    study, panoramas = results.study, results.panoramas
    metrics = [name for name, metric in METRICS.items() if metric.per_panorama and name in panoramas]
    prompts = [*study.prompts, *sorted(set(panoramas["prompt"]) - set(study.prompts))]
    return {
        "name": study.name,
        "warning": EMBEDDED if study.model["embedded"] else "",
        "facts": facts_shown(results),
        "sections": list(sections),
        "plots": list(plots),
        "metrics": [{"name": each, "title": METRICS[each].display, "better": METRICS[each].better} for each in metrics],
        "methods": [
            method_of(row, title, study) for row, title in zip(study.rows, titles(study).values(), strict=True)
        ],
        "prompts": prompts,
        "seeds": [str(seed) for seed in sorted({int(seed) for seed in panoramas["seed"]})],
        "rows": rows_of(panoramas, [row.label for row in study.rows], prompts, metrics, images),
    }


SAMPLERS = {"ddim": "DDIM", "ddpm": "DDPM", "euler": "Euler", "dpmpp": "DPM-Solver++ 2M"}


def facts_shown(results: Results) -> list[tuple[str, str]]:
    """The header: (name, value) of what a reader must know beside the numbers."""
    study, canvas = results.study, results.study.canvas
    model, counts = study.model, results.panoramas["method"].value_counts()
    least, most = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
    if study.made_elsewhere:
        return [
            ("model", "not known: pictures made elsewhere"),
            ("canvas", f"most of {canvas['height']}×{canvas['width']} px, squares of {canvas['window']} px"),
            ("prompts", str(len(study.prompts))),
            ("pictures per method", str(most) if least == most else f"{least} to {most}"),
            ("noise", "shared by the methods" if study.shared_noise else "each method's own"),
            *([("reference", f"{study.reference_count} per prompt")] if study.reference_count else []),
            ("metric networks", study.networks),
        ]
    return [
        ("model", f"{model['name']} ({model['id']}, revision {model['revision'] or 'default'}, {model['precision']})"),
        (
            "canvas",
            f"{canvas['height']}×{canvas['width']} px, windows of {canvas['window']} px every "
            f"{canvas['stride']} latent cells",
        ),
        ("sampling", f"{canvas['steps']} steps, guidance scale {canvas['guidance_scale']:g}; {samplers(study)}"),
        *([("at settings of their own", "; ".join(titled))] if (titled := apart(study)) else []),
        *counts_shown(study, str(most) if least == most else f"{least} to {most}"),
        *([("reference", f"{study.reference_count} squares per prompt")] if study.reference_count else []),
        *rings_shown(study),
        ("metric networks", study.networks),
    ]


def samplers(study: Study) -> str:
    """By whom each row was sampled: of a setting that came later the older rows had what there was, DDIM."""
    rows: dict[str, list[str]] = {}
    for row, title in zip(study.rows, titles(study).values(), strict=True):
        name = str(row.settings.get("sampler", "ddim"))
        rows.setdefault(SAMPLERS.get(name, name), []).append(title)
    if len(rows) == 1:
        return next(iter(rows))
    most = max(rows, key=lambda name: len(rows[name]))
    return ", ".join([most, *(f"{name}: {', '.join(its)}" for name, its in rows.items() if name != most)])


def rings_shown(study: Study) -> list[tuple[str, str]]:
    """Whose panoramas close, where some do."""
    titled = closing(study)
    who = "all panoramas" if len(titled) == len(study.rows) else ", ".join(titled)
    return [("closed to a ring", f"{who}: 360 degrees, the right edge goes on at the left")] if titled else []


def counts_shown(study: Study, panoramas: str) -> list[tuple[str, str]]:
    if one_picture(study):
        return [("prompt", study.prompts[0]), ("seed", str(study.seeds["first"]))]
    return [
        ("prompts", str(len(study.prompts))),
        ("seeds", f"{seeds_told(study)}, from {study.seeds['first']}"),
        ("panoramas per method", panoramas),
    ]


def method_of(row: Row, title: str, study: Study) -> dict[str, Any]:
    return {
        "label": row.label,
        "title": title,
        "height": row.settings.get("height", study.canvas["height"]),
        "width": row.settings.get("width", study.canvas["width"]),
        "windows": windows_of(row, study.canvas),
        "closed": row.closed,
    }


def rows_of(
    panoramas: pd.DataFrame,
    labels: Sequence[str],
    prompts: Sequence[str],
    metrics: Sequence[str],
    images: Mapping[str, str],
) -> list[dict[str, Any]]:
    """A row per (prompt, seed) with a cell per label, None where there is no such panorama.

    Rows are in order of their seeds, which are text: JavaScript's numbers lose digits beyond 2**53.
    """
    rows: dict[tuple[int, int], list[Any]] = {}
    place, column = {prompt: i for i, prompt in enumerate(prompts)}, {label: i for i, label in enumerate(labels)}
    for made in panoramas.to_dict("records"):
        if made["method"] in column:
            cells = rows.setdefault((place[made["prompt"]], int(made["seed"])), [None] * len(labels))
            cells[column[made["method"]]] = {
                "image": images.get(made["file"]),
                "seconds": "–" if math.isnan(made["seconds"]) else f"{made['seconds']:.1f}",
                "scores": [None if math.isnan(made[name]) else float(made[name]) for name in metrics],
            }
    return [{"prompt": prompt, "seed": str(seed), "cells": cells} for (prompt, seed), cells in sorted(rows.items())]
