"""The gate of the miniature model: is what ships good enough? Measures it and writes its numbers beside it.

    python -m experiments.mini.gate
    python -m experiments.mini.gate --autoencoder WORK/vae     # what it alone decides, while it trains

- reconstruction: PSNR and LPIPS of held-out scenes through the autoencoder;
- KID of guided samples against held-out scenes of the same prompts, beside two floors measured alike on a
  second set of such scenes: as rendered (0 but for chance), and through the autoencoder (what no diffusion
  model on these latents can beat);
- caption agreement: how often the mini-CLIP finds the caption of a sample among twelve that exclude each
  other, beside the same for renders and for decoded renders;
- sharpness: how near the samples' finest detail is to the renders', which fog cannot pass and noise neither;
- spread: whether under one prompt several colours stay possible, and how unlike the windows of a MultiDiffusion
  panorama are (Intra-LPIPS).
Exits with status 1 where a number misses its limit.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn

from experiments.common.command_line import one_line_errors
from experiments.common.files import write_json
from experiments.common.progress import say_step
from experiments.metrics.coherence import pair_distances
from experiments.metrics.config import MetricsConfig
from experiments.metrics.crops import grid_crops
from experiments.metrics.definitions.kid import kid
from experiments.metrics.estimates import Estimate, mean_estimate
from experiments.metrics.measure import Networks
from experiments.metrics.networks import load_networks
from experiments.mini.autoencoder_model import psnr_values, reconstruct
from experiments.mini.captions import PAPER_PROMPTS, scene_for_prompt
from experiments.mini.diffusion_data import load_vae
from experiments.mini.diffusion_model import sample
from experiments.mini.files import contact_sheet
from experiments.mini.panoramas import make_panorama
from experiments.mini.picture_numbers import colour_spread, detail, likeness
from experiments.mini.scenes import render_window, sample_scene
from syncdiffusion.backbones.loading import load_backbone, pick_device
from syncdiffusion.backbones.model_files import fingerprint_folder
from syncdiffusion.errors import UsageError
from syncdiffusion.perceptual.distances import PerceptualLoss

# Captions beside the paper's six, with what they fix. Each excludes the six and the others by its kind, hour or style.
OTHER_CAPTIONS: dict[str, dict[str, str]] = {
    "a photo of a city skyline by day": {"kind": "city", "time": "day", "style": "photo"},
    "a photo of a lake at sunset": {"kind": "lake", "time": "sunset", "style": "photo"},
    "a photo of a meadow on a clear day": {"kind": "meadow", "time": "day", "style": "photo"},
    "a photo of a mountain range by day": {"kind": "mountains", "time": "day", "style": "photo"},
    "a cartoon of a city at night": {"kind": "city", "time": "night", "style": "cartoon"},
    "a city at sunset in anime style": {"kind": "city", "time": "sunset", "style": "anime"},
}
CAPTIONS = (*PAPER_PROMPTS, *OTHER_CAPTIONS)
# The random stream of these scenes; the training and its held-out pictures have 0 and 1.
STREAM = 2
# Smallest or largest acceptable values, somewhat worse than what ships: where that is better than a goal, as in spread,
# the limit is the stricter of the two.
LIMITS: dict[str, tuple[str, float]] = {
    "psnr": (">=", 28.0),
    "lpips": ("<=", 0.15),
    "kid_decoded_renders": ("<=", 0.02),
    "kid_samples": ("<=", 0.06),
    "agreement_samples": (">=", 0.85),
    "sharpness_samples": (">=", 0.55),
    "spread_samples": (">=", 0.6),
}
# What the model is meant to reach one day; printed and kept beside the limits.
GOALS: dict[str, tuple[str, float]] = {
    "psnr": (">=", 28.0),
    "lpips": ("<=", 0.15),
    "kid_decoded_renders": ("<=", 0.010),
    "kid_samples": ("<=", 0.025),
    "agreement_samples": (">=", 0.93),
    "agreement_renders": (">=", 0.97),
    "sharpness_samples": (">=", 0.8),
    "spread_samples": (">=", 0.5),
}


@dataclass(frozen=True)
class Row:
    """One measured number: a line of the table and an entry of gate.json."""

    name: str
    value: float
    stderr: float | None
    n: int
    network: str


def row(name: str, estimate: Estimate, n: int, network: str) -> Row:
    return Row(name, estimate.value, estimate.stderr, n, network)


def heldout_scene(caption: str, seed: int, index: int) -> np.ndarray:
    """A window of scene `index` of a caption of CAPTIONS: uint8 [128, 128, 3]."""
    rng = np.random.default_rng([seed, STREAM, CAPTIONS.index(caption), index])
    if caption in PAPER_PROMPTS:
        return render_window(scene_for_prompt(caption, rng), rng)
    # Thick mist hides what the caption names.
    return render_window(sample_scene(rng, **OTHER_CAPTIONS[caption], mist=0.0, aurora=False), rng)


@torch.no_grad()
def lpips_values(loss: PerceptualLoss, images: np.ndarray, decoded: np.ndarray, device: torch.device) -> np.ndarray:
    """Distance of each pair of uint8 [n, h, w, 3]: [n]."""

    def unit(pictures: np.ndarray) -> Tensor:
        return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 255.0

    parts = [slice(begin, begin + 16) for begin in range(0, len(images), 16)]
    found = [loss.distance(loss.features(unit(images[p])), loss.features(unit(decoded[p]))) for p in parts]
    return torch.cat(found).cpu().numpy()


def top_one(image_features: Tensor, text_features: Tensor, answers: Sequence[int]) -> np.ndarray:
    """Whether the nearest of the texts [k, d] to each image [n, d] is the right one, `answers`: float64 [n]."""
    nearest = (image_features @ text_features.T).argmax(1).cpu().numpy()
    return (nearest == np.asarray(answers)).astype(np.float64)


def measure_reconstruction(
    vae: nn.Module, images: np.ndarray, loss: PerceptualLoss, device: torch.device
) -> tuple[list[Row], np.ndarray]:
    """PSNR and LPIPS of pictures through the autoencoder, and the decoded pictures."""
    decoded, _ = reconstruct(vae, images, device)
    ratio = mean_estimate(psnr_values(images, decoded))
    distance = mean_estimate(lpips_values(loss, images, decoded, device))
    rows = [row("psnr", ratio, len(images), "none"), row("lpips", distance, len(images), loss.network)]
    return rows, decoded


def measure_kid(networks: Networks, reference: np.ndarray, others: dict[str, np.ndarray], batch: int) -> list[Row]:
    """KID of each set of pictures against the reference."""
    inception = networks["inception"]
    against = inception.features(reference, batch)
    found = {name: kid(inception.features(images, batch), against) for name, images in others.items()}
    return [row(f"kid_{name}", value, len(others[name]), inception.network) for name, value in found.items()]


def measure_agreement(
    networks: Networks, others: dict[str, np.ndarray], answers: Sequence[int], batch: int
) -> list[Row]:
    """Top-1 accuracy of each set of pictures, whose captions are CAPTIONS[answers[i]]."""
    clip = networks["clip"]
    texts = clip.embed_texts(CAPTIONS)
    rows = []
    for name, images in others.items():
        seen = torch.cat([clip.embed_images(images[i : i + batch]) for i in range(0, len(images), batch)])
        rows.append(row(f"agreement_{name}", mean_estimate(top_one(seen, texts, answers)), len(images), clip.network))
    return rows


def measure_sharpness(reference: np.ndarray, others: dict[str, np.ndarray], groups: int) -> list[Row]:
    """Likeness of detail of each set of pictures and the reference, caption by caption."""
    own = detail(reference)
    found = {name: likeness(detail(images), own, groups) for name, images in others.items()}
    return [row(f"sharpness_{name}", value, len(others[name]), "none") for name, value in found.items()]


def measure_spread(reference: np.ndarray, others: dict[str, np.ndarray], groups: int) -> list[Row]:
    """Ratio of each set's spread of colour under one caption to the reference's, averaged over the captions."""
    own = [colour_spread(part) for part in np.split(reference, groups)]
    rows = []
    for name, images in others.items():
        ratios = np.array([colour_spread(part) for part in np.split(images, groups)]) / own
        rows.append(row(f"spread_{name}", mean_estimate(ratios), groups, "none"))
    return rows


def measure_panoramas(
    folder: Path, networks: Networks, steps: int, guidance: float, seed: int, device: torch.device, batch: int
) -> list[Row]:
    """How unlike the windows of one MultiDiffusion panorama are: Intra-LPIPS, a panorama for each paper prompt.

    Under every prompt several looks must stay possible, else there is nothing to synchronise.
    """
    backbone, loss = load_backbone(str(folder), device=str(device)), networks["lpips"].load()
    side, values = backbone.window * backbone.factor, []
    for prompt in PAPER_PROMPTS:
        given = {"steps": steps, "guidance_scale": guidance}
        panorama = make_panorama(backbone, folder, "multidiffusion", prompt, seed, **given)
        values.append(pair_distances(loss, grid_crops(panorama, side), batch).mean())
    rows = [row("intra_lpips_multidiffusion", mean_estimate(np.array(values)), len(values), networks["lpips"].network)]
    each = zip(PAPER_PROMPTS, values, strict=True)
    return rows + [
        Row(f"intra_lpips: {prompt}", float(value), None, 1, networks["lpips"].network) for prompt, value in each
    ]


def failures(rows: Sequence[Row], limits: dict[str, tuple[str, float]] = LIMITS) -> list[str]:
    """The rows that miss their limit, in words; Inception's limits do not bind another network's numbers."""
    lines = []
    for entry in rows:
        sign, limit = limits.get(entry.name, (">=", -np.inf))
        if entry.name.startswith("kid") and "not Inception" in entry.network:
            continue
        # Not a number must fail too, hence "not ... and".
        if not (entry.value >= limit if sign == ">=" else entry.value <= limit):
            lines.append(f"{entry.name} = {entry.value:.4f}, should be {sign} {limit:g}")
    return lines


def heldout_sets(per_caption: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of windows of held-out scenes, `per_caption` for each of CAPTIONS in order: uint8 [n, 128, 128, 3]."""
    say_step("gate", f"renders {2 * per_caption * len(CAPTIONS)} scenes")
    first, second = (
        np.stack([heldout_scene(c, seed, 2 * i + half) for c in CAPTIONS for i in range(per_caption)])
        for half in range(2)
    )
    return first, second


def measure_sets(networks: Networks, reference: np.ndarray, sets: dict[str, np.ndarray], batch: int) -> list[Row]:
    """Of each set of pictures, caption after caption as the reference: KID, agreement, sharpness and spread."""
    per_caption = len(reference) // len(CAPTIONS)
    paper = slice(0, per_caption * len(PAPER_PROMPTS))
    answers = [i for i in range(len(CAPTIONS)) for _ in range(per_caption)]
    prompted = {name: images[paper] for name, images in sets.items()}
    say_step("gate", "measures KID")
    rows = measure_kid(networks, reference[paper], prompted, batch)
    say_step("gate", "measures caption agreement")
    rows += measure_agreement(networks, sets, answers, batch)
    rows += measure_sharpness(reference, sets, len(CAPTIONS))
    return rows + measure_spread(reference[paper], prompted, len(PAPER_PROMPTS))


def open_networks(clip_folder: Path | None, device: torch.device) -> Networks:
    """What the gate looks through; None takes the embedded mini-CLIP."""
    clip = str(clip_folder) if clip_folder else None
    wanted = ["intra_lpips", "kid", "clip_score"]
    return load_networks(MetricsConfig(metrics=wanted, clip_folder=clip, device=str(device)))


def evaluate_autoencoder(
    folder: Path, networks: Networks, per_caption: int, seed: int, device: torch.device, batch: int = 16
) -> tuple[list[Row], list[list[np.ndarray]]]:
    """The numbers of the gate that an autoencoder alone decides, and a sheet of decoded scenes and scenes."""
    first, second = heldout_sets(per_caption, seed)
    rows, decoded = measure_reconstruction(load_vae(folder, device), second, networks["lpips"].load(), device)
    rows += measure_sets(networks, first, {"decoded_renders": decoded}, batch)
    return rows, side_by_side(decoded, second, per_caption)


def side_by_side(made: np.ndarray, true: np.ndarray, per_caption: int) -> list[list[np.ndarray]]:
    """Rows of a contact sheet: up to four of either for each caption."""
    columns = min(4, per_caption)
    return [[*made[i : i + columns], *true[i : i + columns]] for i in range(0, len(made), per_caption)]


def evaluate(
    folder: Path,
    networks: Networks,
    per_caption: int,
    steps: int,
    guidance: float,
    seed: int,
    device: torch.device,
    batch: int = 16,
) -> tuple[list[Row], list[list[np.ndarray]]]:
    """Every number of the gate, and the rows of a contact sheet: four samples and four renders a caption.

    Args:
        folder: the model, in diffusers' layout.
        per_caption: samples, and scenes of each of two sets, for each of CAPTIONS.
    """
    from diffusers import StableDiffusionPipeline

    if not (folder / "model_index.json").is_file():
        raise UsageError(f"model={folder}: no model_index.json there; run experiments.mini.train_diffusion first")
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32).to(device)
    pipeline.set_progress_bar_config(disable=True)
    first, second = heldout_sets(per_caption, seed)
    captions = [caption for caption in CAPTIONS for _ in range(per_caption)]
    say_step("gate", f"draws {len(captions)} samples")
    samples = sample(pipeline, captions, seed, steps, guidance)
    say_step("gate", "measures the autoencoder")
    rows, decoded = measure_reconstruction(pipeline.vae, second, networks["lpips"].load(), device)
    rows += measure_sets(networks, first, {"samples": samples, "decoded_renders": decoded, "renders": second}, batch)
    say_step("gate", "draws panoramas")
    rows += measure_panoramas(folder, networks, steps, guidance, seed, device, batch)
    return rows, side_by_side(samples, second, per_caption)


@one_line_errors(exits=True)
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure the miniature model that ships with the package.")
    parser.add_argument("--model", type=Path, default=Path("syncdiffusion/weights/mini"))
    parser.add_argument("--autoencoder", type=Path, help="measure this one alone; writes nothing but a sheet")
    parser.add_argument("--clip", type=Path, help="an open_clip folder (default: the embedded mini-CLIP)")
    parser.add_argument("--out", type=Path, help="folder of gate.json and gate.png (default: the model's)")
    parser.add_argument("--per-caption", type=int, default=48, help="samples, and held-out scenes, a caption")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    if options.per_caption < 2 or options.steps < 1:
        raise UsageError(f"per_caption={options.per_caption}, steps={options.steps}: use 2 or more, and 1 or more")
    device = pick_device(options.device)
    networks = open_networks(options.clip, device)
    if options.autoencoder:
        rows, sheet = evaluate_autoencoder(options.autoencoder, networks, options.per_caption, options.seed, device)
        print(tabulate([asdict(entry) for entry in rows], headers="keys", floatfmt=".4f"))
        contact_sheet(sheet, (options.out or options.autoencoder) / "gate.png")
        return
    chosen = (options.per_caption, options.steps, options.guidance, options.seed)
    rows, sheet = evaluate(options.model, networks, *chosen, device)
    print(tabulate([asdict(entry) for entry in rows], headers="keys", floatfmt=".4f"))
    out, missed = options.out or options.model, failures(rows)
    settings = {name: getattr(options, name) for name in ("per_caption", "steps", "guidance", "seed")}
    record = {"model": fingerprint_folder(options.model), "settings": settings, "limits": LIMITS, "goals": GOALS}
    write_json(out / "gate.json", {**record, "passed": not missed, "rows": [asdict(entry) for entry in rows]})
    contact_sheet(sheet, out / "gate.png")
    for line in failures(rows, GOALS):
        print(f"goal: {line}")
    if missed:
        print("\n".join(missed), file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
