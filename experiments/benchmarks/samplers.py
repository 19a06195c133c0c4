"""The samplers that are compared, all behind one signature, and how many network evaluations each takes."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING

from torch import Tensor

from baselines import multidiffusion, profile_matching
from baselines.released.literal import Distance, literal_sample
from experiments.benchmarks.panorama import VIEW_BATCH_SIZES, panorama_latents
from syncdiffusion import sync as guidance
from syncdiffusion.cost import Evaluations
from syncdiffusion.joint.loop import initial_noise, window_count, windows_for
from syncdiffusion.perceptual.distances import load_perceptual
from syncdiffusion.sync import SyncDiffusionSettings

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone


@dataclass(frozen=True)
class Task:
    """One panorama to make: model, prompt, seed, settings. MultiDiffusion reads of the settings what it knows."""

    backbone: "Backbone"
    prompt: str
    seed: int
    settings: SyncDiffusionSettings


@dataclass(frozen=True)
class Sampler:
    """latents: denoised canvas [1, 4, h, w] of a task. evaluations: what that takes, without decoding the canvas.

    window_batch: windows through the networks at once, where the settings have no say in it.
    """

    name: str
    latents: Callable[[Task], Tensor]
    evaluations: Callable[[Task], Evaluations]
    window_batch: int | None = None


def noise_of(task: Task) -> Tensor:
    """Initial noise [1, 4, h, w] of the task's prompt and seed, on the backbone's device."""
    height, width = (length // task.backbone.factor for length in (task.settings.height, task.settings.width))
    noise = initial_noise([task.prompt], [task.seed], (task.backbone.channels, height, width))
    return noise.to(task.backbone.device, task.backbone.dtype)


def multidiffusion_settings(settings: SyncDiffusionSettings) -> multidiffusion.MultiDiffusionSettings:
    """What MultiDiffusion has in common with `settings`."""
    names = [field.name for field in fields(multidiffusion.MultiDiffusionSettings)]
    return multidiffusion.MultiDiffusionSettings(**{name: getattr(settings, name) for name in names})


def profile_settings(settings: SyncDiffusionSettings) -> profile_matching.ProfileMatchingSettings:
    """Profile matching on the same canvas, with its own defaults for the rest."""
    return profile_matching.ProfileMatchingSettings(**asdict(multidiffusion_settings(settings)))


def two_image_distance(task: Task) -> Distance:
    """The task's perceptual distance as a function of two images in [-1, 1], each looked at anew in every call.

    The networks are those of `syncdiffusion.perceptual.distances`, which equal the `lpips` library's; the library's own
    gradient may be NaN in half precision (protocol §5).
    """
    loss = load_perceptual(task.settings.loss, task.backbone.device, task.backbone.dtype)
    return lambda a, b: loss.distance(loss.features((a + 1) / 2), loss.features((b + 1) / 2))


def _ours(task: Task) -> Tensor:
    return guidance.sample_latents(task.backbone, [task.prompt], [task.seed], task.settings)


def _literal(task: Task) -> Tensor:
    settings = task.settings
    with task.backbone.autocast():
        return literal_sample(
            task.backbone,
            task.prompt,
            noise_of(task),
            stride=settings.stride,
            steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            distance=two_image_distance(task),
            weight=settings.weight,
            decay=settings.decay,
            every_n=settings.every_n,
            first_n=settings.steps if settings.first_n is None else settings.first_n,
            anchor=settings.anchor,
            loop_closure=settings.loop_closure,
        )


def _multidiffusion(task: Task) -> Tensor:
    chosen = multidiffusion_settings(task.settings)
    return multidiffusion.sample_latents(task.backbone, [task.prompt], [task.seed], chosen)


def _profile_matching(task: Task) -> Tensor:
    chosen = profile_settings(task.settings)
    return profile_matching.sample_latents(task.backbone, [task.prompt], [task.seed], chosen)


def _panorama(task: Task, view_batch_size: int) -> Tensor:
    settings = task.settings
    return panorama_latents(
        task.backbone,
        task.prompt,
        noise_of(task),
        corners=windows_for(task.backbone, settings.height, settings.width, settings.stride).corners,
        steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        view_batch_size=view_batch_size,
    )


def _ours_evaluations(task: Task) -> Evaluations:
    whole = guidance.evaluations(task.settings, task.backbone.window, task.backbone.factor)
    return _without_canvas(whole, task)


def _multidiffusion_evaluations(task: Task) -> Evaluations:
    chosen = multidiffusion_settings(task.settings)
    return _without_canvas(multidiffusion.evaluations(chosen, task.backbone.window, task.backbone.factor), task)


def _without_canvas(whole: Evaluations, task: Task) -> Evaluations:
    """Both functions count the last decoding of the canvas, which latents alone do not need."""
    canvas = task.settings.height * task.settings.width / (task.backbone.window * task.backbone.factor) ** 2
    return replace(whole, decoder=whole.decoder - canvas)


def _literal_evaluations(task: Task) -> Evaluations:
    """At a synchronised step all N windows with a gradient, the anchor once more without, 2 N images in the loss."""
    settings = task.settings
    n = window_count(settings, task.backbone.window, task.backbone.factor)
    pulls = sum(settings.active(index) for index in range(settings.steps))
    return Evaluations(unet=n * settings.steps) + Evaluations(n + 1, n, n + 1, n, 2 * n, n) * pulls


COMPILED = "multidiffusion, compiled"
SYNCDIFFUSION = Sampler("syncdiffusion", _ours, _ours_evaluations)
LITERAL = Sampler("literal", _literal, _literal_evaluations, window_batch=1)
MULTIDIFFUSION = Sampler("multidiffusion", _multidiffusion, _multidiffusion_evaluations)
# The same networks as often as MultiDiffusion.
PROFILE_MATCHING = Sampler("profile_matching", _profile_matching, _multidiffusion_evaluations)


def compiled(twin: "Backbone") -> Sampler:
    """Our MultiDiffusion on `twin`, the task's model once more, whose UNet goes through torch.compile."""

    def latents(task: Task) -> Tensor:
        return _multidiffusion(replace(task, backbone=twin))

    return Sampler(COMPILED, latents, _multidiffusion_evaluations)


def panorama(view_batch_size: int) -> Sampler:
    """Diffusers' pipeline at a `view_batch_size`: how many views go through the UNet at once."""
    return Sampler(
        f"diffusers panorama, view_batch_size {view_batch_size}",
        lambda task: _panorama(task, view_batch_size),
        _multidiffusion_evaluations,
        view_batch_size,
    )


def panoramas(task: Task) -> list[Sampler]:
    """Diffusers' pipeline at 1, 2, 4, 8 and all views at once."""
    count = window_count(task.settings, task.backbone.window, task.backbone.factor)
    return [panorama(size) for size in (*(size for size in VIEW_BATCH_SIZES if size < count), count)]
