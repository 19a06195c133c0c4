"""The samplers that are compared, all behind one signature, and how many network calls each takes."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from baselines import METHODS
from baselines.released.literal import Distance, literal_sample
from experiments.benchmarks.panorama import VIEW_BATCH_SIZES, panorama_latents
from syncdiffusion.cost import NetworkCalls, Square
from syncdiffusion.joint.noise import initial_noise
from syncdiffusion.joint.task import windows_for
from syncdiffusion.method import overlapping_corners
from syncdiffusion.perceptual.distances import load_perceptual
from syncdiffusion.sync import SyncDiffusionSettings

if TYPE_CHECKING:
    from syncdiffusion.backbones.backbone import Backbone


@dataclass(frozen=True)
class Job:
    """One panorama to make: model, prompt, seed, settings. Other methods read of the settings what they know."""

    backbone: "Backbone"
    prompt: str
    seed: int
    settings: SyncDiffusionSettings

    @property
    def square(self) -> Square:
        return Square(self.backbone.window, self.backbone.factor)


@dataclass(frozen=True)
class Sampler:
    """latents: denoised canvas [1, c, h, w] of a job. calls: what that takes, without decoding the canvas.

    window_batch: windows through the networks at once, where the settings have no say in it.
    """

    name: str
    latents: Callable[[Job], Tensor]
    calls: Callable[[Job], NetworkCalls]
    window_batch: int | None = None


def noise_of(job: Job) -> Tensor:
    """Initial noise [1, c, h, w] of the job's prompt and seed, on the backbone's device."""
    height, width = (length // job.backbone.factor for length in (job.settings.height, job.settings.width))
    noise = initial_noise([job.prompt], [job.seed], (job.backbone.channels, height, width))
    return noise.to(job.backbone.device, job.backbone.dtype)


def settings_for(method: str, settings: SyncDiffusionSettings) -> Any:
    """The settings of another method on the same canvas: what the two have of the canvas in common, and its own."""
    wanted = METHODS[method].settings
    if isinstance(settings, wanted):
        return settings
    canvas = ("height", "width", "steps", "guidance_scale", "negative_prompt", "stride", "loop_closure", "window_batch")
    return wanted(**{each.name: getattr(settings, each.name) for each in fields(wanted) if each.name in canvas})


def ours(method: str) -> Sampler:
    """A method of the catalogue."""

    def latents(job: Job) -> Tensor:
        chosen = settings_for(method, job.settings)
        return METHODS[method].sample_latents(job.backbone, [job.prompt], [job.seed], chosen)

    def calls(job: Job) -> NetworkCalls:
        whole = METHODS[method].calls(settings_for(method, job.settings), job.square)
        # A method counts the last decoding of the canvas, which latents alone do not need.
        canvas = job.settings.height * job.settings.width / job.square.pixels**2
        return replace(whole, decoder=whole.decoder - canvas)

    return Sampler(method, latents, calls)


def two_image_distance(job: Job) -> Distance:
    """The job's perceptual distance as a function of two images in [-1, 1], each looked at anew in every call.

    The networks are those of `syncdiffusion.perceptual.distances`, which equal the `lpips` library's; the library's own
    gradient may be NaN in half precision (PROTOCOL.md, section 5).
    """
    loss = load_perceptual(job.settings.loss, job.backbone.device, job.backbone.dtype)
    return lambda a, b: loss.distance(loss.features((a + 1) / 2), loss.features((b + 1) / 2))


def _literal(job: Job) -> Tensor:
    settings = job.settings
    with job.backbone.autocast():
        return literal_sample(
            job.backbone,
            job.prompt,
            noise_of(job),
            stride=settings.stride,
            steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            distance=two_image_distance(job),
            weight=settings.weight,
            decay=settings.decay,
            every_n=settings.every_n,
            first_n=settings.steps if settings.first_n is None else settings.first_n,
            anchor=settings.anchor,
            loop_closure=settings.loop_closure,
        )


def _literal_calls(job: Job) -> NetworkCalls:
    """At a synchronised step all N windows with a gradient, the anchor once more without, 2 N images in the loss."""
    settings = job.settings
    n = len(overlapping_corners(settings, job.square))
    pulls = sum(settings.active(index) for index in range(settings.steps))
    return NetworkCalls(unet=n * settings.steps) + NetworkCalls(n + 1, n, n + 1, n, 2 * n, n) * pulls


def _panorama(job: Job, view_batch_size: int) -> Tensor:
    settings = job.settings
    return panorama_latents(
        job.backbone,
        job.prompt,
        noise_of(job),
        corners=windows_for(job.backbone, settings.height, settings.width, settings.stride).corners,
        steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        view_batch_size=view_batch_size,
    )


COMPILED = "multidiffusion, compiled"
SYNCDIFFUSION, MULTIDIFFUSION = ours("syncdiffusion"), ours("multidiffusion")
# Of SyncDiffusion: compared in time, with it and with MultiDiffusion; their latents are others.
APPROXIMATIONS = (ours("profile_matching"), ours("shifted_matching"))
LITERAL = Sampler("literal", _literal, _literal_calls, window_batch=1)


def compiled(twin: "Backbone") -> Sampler:
    """Our MultiDiffusion on `twin`, the job's model once more, whose UNet goes through torch.compile."""
    return replace(
        MULTIDIFFUSION, name=COMPILED, latents=lambda job: MULTIDIFFUSION.latents(replace(job, backbone=twin))
    )


def panorama(view_batch_size: int) -> Sampler:
    """Diffusers' pipeline at a `view_batch_size`: how many views go through the UNet at once."""
    return Sampler(
        f"diffusers panorama, view_batch_size {view_batch_size}",
        lambda job: _panorama(job, view_batch_size),
        MULTIDIFFUSION.calls,
        view_batch_size,
    )


def panoramas(job: Job) -> list[Sampler]:
    """Diffusers' pipeline at 1, 2, 4, 8 and all views at once."""
    count = len(overlapping_corners(job.settings, job.square))
    return [panorama(size) for size in (*(size for size in VIEW_BATCH_SIZES if size < count), count)]
