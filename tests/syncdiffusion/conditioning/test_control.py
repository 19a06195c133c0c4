"""ControlNets against diffusers' own pipeline on one window, and against a literal loop on several.

Tolerance 1e-4 on latents of unit size: float32 networks in batches sum in another order.
"""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from baselines import METHODS
from baselines.released.literal import Ddim, views_of
from syncdiffusion.backbones.loading import load_backbone
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.noise import initial_noise

PROMPT, SEED = "a lake", 3
METHOD = METHODS["multidiffusion"]
COMMON = {"height": 64, "steps": 4, "guidance_scale": 3.0, "stride": 4, "window_batch": 2}


def controlnet(tiny, folder, seed: int) -> str:
    """A ControlNet of the tiny UNet whose outputs are not zero, as a trained one's."""
    from diffusers import ControlNetModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ControlNetModel.from_unet(tiny.unet, conditioning_embedding_out_channels=(8, 8, 16, 16))
        zero = [
            network.controlnet_mid_block,
            *network.controlnet_down_blocks,
            network.controlnet_cond_embedding.conv_out,
        ]
        for layer in zero:
            torch.nn.init.normal_(layer.weight, std=0.3)
    network.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def networks(tiny, tmp_path_factory) -> list[str]:
    return [controlnet(tiny, tmp_path_factory.mktemp("control"), seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> dict[int, list[str]]:
    """Two pictures of each width."""
    folder, found = tmp_path_factory.mktemp("pictures"), {}
    for width in (64, 96, 128):
        for seed in (0, 1):
            coarse = np.random.default_rng(seed).integers(0, 256, (8, width // 8, 3), dtype=np.uint8)
            path = folder / f"{width}-{seed}.png"
            Image.fromarray(coarse).resize((width, 64), Image.Resampling.NEAREST).save(path)
            found.setdefault(width, []).append(str(path))
    return found


@pytest.fixture(scope="module")
def pooled(networks, tmp_path_factory) -> str:
    """A ControlNet whose outputs are pooled over the window, as shuffle's: diffusers gives them to one half alone."""
    folder = shutil.copytree(networks[0], tmp_path_factory.mktemp("pooled") / "network")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"global_pool_conditions": True}))
    return str(folder)


@pytest.mark.parametrize(("count", "pools"), [(1, False), (2, False), (1, True)])
def test_on_one_window_it_is_the_pipeline_of_diffusers(tiny, tiny_folder, networks, pooled, pictures, count, pools):
    from diffusers import ControlNetModel, DDIMScheduler, StableDiffusionControlNetPipeline

    many, networks = count > 1, [pooled] if pools else networks
    chosen = {
        "control_image": pictures[64] if many else pictures[64][0],
        "controlnet": networks if many else networks[0],
        "control_scale": [0.7, 1.5] if many else 0.7,
        "control_start": [0.0, 0.25] if many else 0.25,
        "control_end": [0.75, 1.0] if many else 1.0,
    }
    ours = METHOD.sample_latents(tiny, [PROMPT], [SEED], METHOD.settings(**COMMON, width=64, **chosen))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = [ControlNetModel.from_pretrained(each) for each in networks[:count]]
        pipe = StableDiffusionControlNetPipeline.from_pretrained(
            tiny_folder, controlnet=loaded if many else loaded[0], safety_checker=None
        )
    pipe.scheduler = DDIMScheduler.from_config(tiny.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    images = [Image.open(path) for path in pictures[64][:count]]
    theirs = pipe(
        PROMPT,
        image=images if many else images[0],
        num_inference_steps=4,
        guidance_scale=3.0,
        latents=initial_noise([PROMPT], [SEED], (4, 8, 8)),
        controlnet_conditioning_scale=chosen["control_scale"],
        control_guidance_start=chosen["control_start"],
        control_guidance_end=chosen["control_end"],
        output_type="latent",
    ).images
    assert (ours - theirs).abs().max() <= 1e-4
    plain = METHOD.sample_latents(tiny, [PROMPT], [SEED], METHOD.settings(**COMMON, width=64))
    assert (ours - plain).abs().max() > 1e-2


def literal(tiny, network, path, wrap: bool = False):
    """One window after the other, each with its own part of the picture."""
    pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None] / 255
    text, empty = tiny.encode_prompts([PROMPT]), tiny.encode_prompts([""])
    width = pixels.shape[-1] // 8
    x, ddim = initial_noise([PROMPT], [SEED], (4, 8, width)), Ddim(4)
    views = views_of(8, width, 8, 4, "full" if wrap else "off")
    with torch.no_grad():
        for t in ddim.timesteps:
            value, count = torch.zeros_like(x), torch.zeros_like(x)
            for _, left in views:
                columns = [(left + i) % width for i in range(8)]
                seen = [(8 * left + i) % (8 * width) for i in range(64)]
                view, states = x[..., columns], torch.cat([empty, text])
                down, middle = network(
                    torch.cat([view, view]), t, states, pixels[..., seen].repeat(2, 1, 1, 1), 0.7, return_dict=False
                )
                both = tiny.unet(
                    torch.cat([view, view]), t, states,
                    down_block_additional_residuals=down, mid_block_additional_residual=middle,
                ).sample  # fmt: skip
                noise = both[:1] + 3.0 * (both[1:] - both[:1])
                value[..., columns] += ddim.previous(view, noise, t)
                count[..., columns] += 1
            x = value / count
    return x


@pytest.mark.parametrize("closure", ["off", "full"])
def test_every_window_sees_its_part_of_the_picture(tiny, networks, pictures, closure):
    from diffusers import ControlNetModel

    chosen = {"control_image": pictures[128][0], "controlnet": networks[0], "control_scale": 0.7}
    settings = METHOD.settings(**COMMON, width=128, loop_closure=closure, **chosen)
    ours = METHOD.sample_latents(tiny, [PROMPT], [SEED], settings)
    expected = literal(tiny, ControlNetModel.from_pretrained(networks[0]).eval(), pictures[128][0], closure == "full")
    assert (ours - expected).abs().max() <= 1e-4
    two = METHOD.sample_latents(tiny, ["a city", PROMPT], [0, SEED], settings)  # beside another panorama
    assert (two[1:] - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("name", ["syncdiffusion", "profile_matching", "spotdiffusion", "blended_latent"])
def test_it_goes_with_every_method_and_with_a_layout(tiny, networks, pictures, tmp_path, name):
    """A picture changes what each of them makes; a scale of 0 changes nothing; regions of one prompt change nothing."""
    method = METHODS[name]
    windows = {} if name in ("spotdiffusion", "blended_latent") else {"stride": 4}
    pull = {"loss": "colour", "first_n": 1} if name == "syncdiffusion" else {}
    common = {"height": 64, "width": 128, "steps": 2, "guidance_scale": 3.0, **windows, **pull}
    control = {"control_image": pictures[128][0], "controlnet": networks[0]}
    (tmp_path / "layout.yaml").write_text(f"regions: [{{prompt: {PROMPT}, box: [0, 0, 0.4, 1]}}]")
    plain, off, on, parted = (
        method.sample_latents(tiny, [PROMPT], [SEED], method.settings(**common, **more))
        for more in (
            {},
            control | {"control_scale": 0.0},
            control,
            control | {"layout": str(tmp_path / "layout.yaml"), "bootstrapping": 0.0},
        )
    )
    assert (plain - off).abs().max() <= 1e-5
    assert (on - plain).abs().max() > 1e-2
    assert (on - parted).abs().max() <= 1e-4


def test_the_pull_goes_through_the_controlnet(tiny, networks, pictures):
    """The gradient of a foreseen image against finite differences of the same distance, in float64."""
    backbone = load_backbone(tiny.model_id, device="cpu", precision="float64")
    sync, seen = METHODS["syncdiffusion"], []
    chosen = {"control_image": pictures[96][0], "controlnet": networks[0], "loss": "colour", "toward": "orange"}
    settings = sync.settings(**{**COMMON, "steps": 2}, width=96, first_n=1, **chosen)
    sync.sample_latents(backbone, [PROMPT], [SEED], settings, on_pull=seen.append)
    from syncdiffusion.joint.foresee import Foresight
    from syncdiffusion.joint.task import new_task

    task = new_task(backbone, [PROMPT], [SEED], settings)
    windows, step = task.windows(4), task.steps[0]
    foresight = Foresight.of(task, "colour", 1, False, True, "orange")
    views, goal = windows.crop(task.noise), foresight.goal
    direction = torch.randn(views[:, 1].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def distance(shift):
        moved = views.clone()
        moved[:, 1] += shift * direction
        return foresight.gradients(step, windows, moved, [1], [goal], None)[2].item()

    slope = (distance(1e-5) - distance(-1e-5)) / 2e-5
    assert slope == pytest.approx(float((seen[0].gradients[:, 1] * direction).sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"control_image": "", "controlnet": ""}, "controlnet: is empty; give control_image=FILE and controlnet"),
        ({"control_image": "a.png"}, "control_image, controlnet: 1 and 0 of them; give a controlnet for each"),
        ({"controlnet": ["a/b", "c/d"]}, "control_image, controlnet: 0 and 2 of them"),
        ({"control_scale": 0.5}, "control_scale=0.5: is of a ControlNet"),
        ({"control_image": "a", "controlnet": "b/c", "control_scale": [1, 2]}, "give one, or one for each of 1"),
        ({"control_image": "a", "controlnet": "b/c", "control_start": 0.5, "control_end": 0.5}, "give start < end"),
        (
            {"control_image": "a", "controlnet": "b/c", "control_start": 0.9},
            "control_start=0.9, control_end=1.0: none of",
        ),
        ({"control_image": "a", "controlnet": "b/c", "control_end": 1.5}, "control_end=1.5: use 0 to 1"),
        ({"control_image": ["a", 3], "controlnet": ["b/c", "d/e"]}, "control_image=3: use text"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_at_once(changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        METHOD.settings(**COMMON, width=64, **changes)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_loaded_is_refused_in_one_line(tiny, networks, pictures, tmp_path):
    from diffusers import ControlNetModel

    with torch.random.fork_rng(devices=[]):
        other = ControlNetModel(
            block_out_channels=(8, 8), down_block_types=("DownBlock2D",) * 2, norm_num_groups=8, cross_attention_dim=16,
            conditioning_embedding_out_channels=(8, 8, 16, 16), layers_per_block=1,
        )  # fmt: skip
    other.save_pretrained(tmp_path / "other")
    (tmp_path / "empty").mkdir()
    for changes, message in (
        ({"control_image": pictures[96][0]}, "control_image=.*: is 96x64 px, the panorama 64x64; give one of its size"),
        ({"control_image": "none.png"}, "control_image=none.png: no such file"),
        ({"controlnet": str(tmp_path / "none")}, "controlnet=.*none: no such folder"),
        ({"controlnet": str(tmp_path / "empty")}, "controlnet=.*empty: could not be loaded"),
        ({"controlnet": str(tmp_path / "other")}, "controlnet=.*other: is another model's .block_out_channels"),
    ):
        chosen = {"control_image": pictures[64][0], "controlnet": networks[0], **changes}
        with pytest.raises(UsageError, match=message) as caught:
            METHOD.sample_latents(tiny, [PROMPT], [SEED], METHOD.settings(**COMMON, width=64, **chosen))
        assert "\n" not in str(caught.value)
