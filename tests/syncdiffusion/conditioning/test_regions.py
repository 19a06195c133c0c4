"""Layouts against MultiDiffusion's region-based loop written out, in every method, and the refusals of bad ones.

Tolerance 1e-4 on latents of unit size, as for the methods without a layout: float32 networks in batches sum in another
order. Measured differences are around 1e-6.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from baselines import METHODS
from baselines.released.literal import Ddim, cut, decoded, guided_noise, views_of
from syncdiffusion.conditioning.layout import inside, layout_for, read_layout
from syncdiffusion.cost import Square
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.noise import initial_noise, noise_generator
from syncdiffusion.joint.task import new_task
from syncdiffusion.sync import METHOD as SYNC
from tests.baselines.counting import check_calls

PROMPT, SEED = "a lake", 3
SIZE = {"height": 64, "width": 128, "guidance_scale": 3.0, "steps": 4}
COMMON = {**SIZE, "stride": 4, "window_batch": 3}


@pytest.fixture
def layout(tmp_path):
    """A box at the left, a triangle in the middle, a mask at the right; the last window knows two of them."""
    mask = np.zeros((64, 128), np.uint8)
    mask[24:, 104:] = 200
    Image.fromarray(mask).save(tmp_path / "mask.png")
    regions = [
        {"prompt": "a city", "box": [0, 0.25, 0.2, 1]},
        {"prompt": "hills", "polygon": [[0.3, 1], [0.5, 0.1], [0.7, 1]]},
        {"prompt": "trees", "mask": "mask.png"},
    ]
    return write(tmp_path, {"background": PROMPT, "regions": regions})


def write(folder, content, name="layout.json") -> str:
    (folder / name).write_text(json.dumps(content))
    return str(folder / name)


def background_latent(tiny, rgb):
    picture = rgb[None, :, None, None].expand(1, 3, 64, 64)
    return tiny.vae.encode(2 * picture - 1).latent_dist.mode() * tiny.vae.config.scaling_factor


@torch.no_grad()
def region_based(tiny, layout, bootstrapping: int):
    """The official region-based loop: all prompts in all views, noised colours around, DDIM each, sums over counts."""
    found, ddim = read_layout(Path(layout)), Ddim(4)
    masks = torch.from_numpy(found.cells(64, 128, 8)).float()[:, None]  # [P, 1, h, w]
    texts, empty = tiny.encode_prompts(found.prompts(PROMPT)), tiny.encode_prompts([""])
    rgb = torch.rand(20, 3, generator=noise_generator(PROMPT, SEED, "bootstrapping colours"))
    backgrounds = [background_latent(tiny, each) for each in rgb]
    noise = initial_noise([PROMPT], [SEED], (4, 8, 16))
    latent, views = noise.clone(), views_of(8, 16, 8, 4)
    for i, t in enumerate(ddim.timesteps):
        value, count = torch.zeros_like(latent), torch.zeros(1, 1, 8, 16)
        draws = torch.randint(
            20, (len(views), len(masks)), generator=noise_generator(PROMPT, SEED, f"bootstrapping {i}")
        )
        for number, (top, left) in enumerate(views):
            place = (..., slice(top, top + 8), slice(left, left + 8))
            for p, mask in enumerate(masks[place]):
                x = latent[place]
                if i < bootstrapping and p > 0:
                    alpha = tiny.scheduler.alphas_cumprod[t]
                    noised = alpha.sqrt() * backgrounds[draws[number, p]] + (1 - alpha).sqrt() * noise[place]
                    x = x * mask + noised * (1 - mask)
                stepped = ddim.previous(x, guided_noise(tiny, x, t, texts[p][None], empty, 3.0), t)
                value[place] += mask * stepped
                count[place] += mask
        latent = value / count
    return latent


@pytest.mark.parametrize("bootstrapping", [0, 2])
def test_regions_equal_the_official_loop(tiny, layout, bootstrapping):
    method = METHODS["multidiffusion"]
    chosen = method.settings(**COMMON, layout=layout, bootstrapping=bootstrapping / 4)
    ours = method.sample_latents(tiny, [PROMPT], [SEED], chosen)
    literal = region_based(tiny, layout, bootstrapping)
    assert (ours - literal).abs().max() <= 1e-4
    plain = method.sample_latents(tiny, [PROMPT], [SEED], method.settings(**COMMON))
    other = region_based(tiny, layout, 2 - bootstrapping)
    assert min((ours - each).abs().max() for each in (plain, other)) > 1e-2  # the comparison can fail


WITHOUT_STRIDE = ("spotdiffusion", "blended_latent")


@pytest.mark.parametrize("name", ["multidiffusion", "syncdiffusion", "profile_matching", *WITHOUT_STRIDE])
def test_regions_of_one_prompt_are_that_prompt_in_every_method(tiny, tmp_path, name):
    """Two panoramas at once, each with its own layout of a folder, of unequally many regions; all of its own prompt."""
    left, right = {"box": [0, 0, 0.3, 1]}, {"polygon": [[0.6, 0.9], [0.9, 0.1], [1, 1]]}
    for prompt, places in ((PROMPT, [left, right]), ("hills", [right])):
        regions = [{"prompt": prompt, **place} for place in places]
        write(tmp_path, {"background": prompt, "regions": regions}, f"{prompt}.yaml")
    method, chosen = METHODS[name], dict(COMMON)
    if name in WITHOUT_STRIDE:
        chosen = dict(SIZE)
    if name == "syncdiffusion":
        chosen |= {"loss": "colour", "weight": 30.0, "gradient_batch": 2, "first_n": 2}
    images = [
        method.sample_latents(tiny, [PROMPT, "hills"], [SEED, 4], method.settings(**chosen, **more))
        for more in ({}, {"layout": str(tmp_path), "bootstrapping": 0})
    ]
    assert (images[0] - images[1]).abs().max() <= 1e-4
    # With bootstrapping, what is around a region is hidden from it.
    hidden = method.sample_latents(tiny, [PROMPT, "hills"], [SEED, 4], method.settings(**chosen, layout=str(tmp_path)))
    assert (images[0] - hidden).abs().max() > 1e-3


def test_the_pull_goes_through_all_prompts_of_a_window(tiny, layout):
    """The gradient of each window's foreseen image, whose noise is put together of its regions', by hand."""
    pulls, ddim = [], Ddim(4)
    chosen = SYNC.settings(**COMMON, layout=layout, bootstrapping=0.0, loss="colour", toward="orange", gradient_batch=2)
    SYNC.sample_latents(tiny, [PROMPT], [SEED], chosen, on_pull=pulls.append)
    found, goal = read_layout(Path(layout)), torch.tensor([255, 165, 0]) / 255
    masks = torch.from_numpy(found.cells(64, 128, 8)).float()[:, None]
    texts, empty = tiny.encode_prompts(found.prompts(PROMPT)), tiny.encode_prompts([""])
    canvas, t = initial_noise([PROMPT], [SEED], (4, 8, 16)), ddim.timesteps[0]
    for j, view in enumerate(views_of(8, 16, 8, 4)):
        x = cut(canvas, *view, 8).requires_grad_()
        mine = cut(masks, *view, 8)
        noise = sum(m * guided_noise(tiny, x, t, text[None], empty, 3.0) for m, text in zip(mine, texts, strict=True))
        loss = (decoded(tiny, ddim.foreseen(x, noise, t)).mean(dim=(0, 2, 3)) - goal).square().sum()
        gradient = torch.autograd.grad(loss, x)[0][0]
        torch.testing.assert_close(
            pulls[0].gradients[0, j], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max())
        )


def test_colours_are_noised_with_pure_noise_whatever_the_canvas_starts_from(tiny, layout, tmp_path):
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 128, 3), dtype=np.uint8)).save(
        tmp_path / "start.png"
    )
    chosen = METHODS["multidiffusion"].settings(
        **COMMON, layout=layout, start_image=str(tmp_path / "start.png"), start_strength=0.5, bootstrapping=1.0
    )
    task = new_task(tiny, [PROMPT], [SEED], chosen)
    windows, plain = task.windows(4), replace(task, start=None)
    with_picture, without = (each.conditioning.at(each, task.steps[0], windows).parts for each in (task, plain))
    assert (task.noise - plain.noise).abs().max() > 0.1
    assert torch.equal(with_picture.instead, without.instead)


@pytest.mark.parametrize("name", ["multidiffusion", "blended_latent", "safa"])
def test_calls_are_what_the_networks_saw(tiny, monkeypatch, layout, name):
    """A window is predicted for the prompts that it has cells of, and for no other."""
    chosen = {"multidiffusion": COMMON, "blended_latent": SIZE | {"start": 0.3}, "safa": SIZE | {"overlap": 0.5}}[name]
    method, square = METHODS[name], Square(tiny.window, tiny.factor)
    # The panorama that is counted has another prompt than the layout's background.
    Path(layout).write_text(Path(layout).read_text().replace(PROMPT, "hills"))
    check_calls(tiny, monkeypatch, name, {**chosen, "layout": layout})
    plain, parted = (method.network_calls(method.settings(**chosen, layout=each), square) for each in (None, layout))
    assert plain.unet < parted.unet < 4 * plain.unet


def test_a_panorama_of_a_folder_of_layouts_is_the_same_in_any_company(tiny, tmp_path):
    """One of two regions beside one of one: also the colours that regions begin against are its own."""
    for name, count in (("a lake", 1), ("the sea", 2)):
        regions = [{"prompt": "hills", "box": [0.4 * i, 0.25, 0.4 * i + 0.4, 1]} for i in range(count)]
        write(tmp_path, {"background": name, "regions": regions}, f"{name}.json")
    method = METHODS["multidiffusion"]
    chosen = method.settings(**COMMON, layout=str(tmp_path), bootstrapping=1.0)
    alone = [method.sample_latents(tiny, [prompt], [SEED], chosen) for prompt in ("a lake", "the sea")]
    together = method.sample_latents(tiny, ["a lake", "the sea"], [SEED, SEED], chosen)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)


def test_of_a_folder_the_layout_of_that_background_is_taken_before_one_for_any(tmp_path):
    write(tmp_path, {"regions": [BOX]}, "a.json")
    write(tmp_path, {"background": "hills", "regions": [BOX]}, "b.json")
    assert layout_for(str(tmp_path), "hills").path.name == "b.json"
    assert layout_for(str(tmp_path), "a lake").path.name == "a.json"


@pytest.mark.parametrize("change", [{"width": 124}, {"height": 60}])
def test_sizes_of_no_whole_cells_are_refused(layout, change):
    ((name, value),) = change.items()
    with pytest.raises(UsageError, match=f"^{name}={value}: use a multiple of 8"):
        read_layout(Path(layout)).cells(**{"height": 64, "width": 128, "factor": 8, **change})


def test_a_triangle_holds_the_pixels_left_of_its_edges():
    corners = [(0.1, 0.9), (0.5, 0.2), (0.8, 0.95)]
    found = inside(corners, 40, 90)
    for y in range(0, 40, 3):
        for x in range(0, 90, 4):
            px, py = (x + 0.5) / 90, (y + 0.5) / 40
            sides = [
                (bx - ax) * (py - ay) - (by - ay) * (px - ax)
                for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True)
            ]
            assert found[y, x] == (min(sides) > 0 or max(sides) < 0)
    assert inside([(0.25, 0), (0.75, 0), (0.75, 1), (0.25, 1)], 8, 8).sum() == 32  # a box's pixels, none twice


def test_a_mask_is_reduced_to_the_nearest_pixel_as_torch_does(tmp_path):
    mask = np.random.default_rng(0).integers(0, 256, (64, 128)).astype(np.uint8)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    layout = read_layout(Path(write(tmp_path, {"regions": [{"prompt": "a", "mask": "mask.png"}]})))
    resized = torch.nn.functional.interpolate(torch.from_numpy(mask)[None, None] / 255, (8, 16), mode="nearest")
    assert np.array_equal(layout.cells(64, 128, 8)[1], (resized[0, 0] >= 0.5).numpy())
    assert layout.background is None and layout.prompts("x") == ("x", "a")


BOX = {"prompt": "a", "box": [0, 0, 1, 0.5]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must hold `background` and `regions`"),
        ({"regions": []}, "regions=.*give a list"),
        ({"regions": [BOX], "size": 3}, "size: no such part; there are background, regions"),
        ({"background": 3, "regions": [BOX]}, "background=3: give a text"),
        ({"regions": [{"box": [0, 0, 1, 1]}]}, "region 1: prompt=None: say what is there"),
        ({"regions": [{"prompt": "a"}]}, "region 1: has no place; give one of box, polygon, mask"),
        ({"regions": [{**BOX, "mask": "m.png"}]}, "region 1: has box and mask; give one"),
        ({"regions": [{"prompt": "a", "box": [0, 0, 2, 1]}]}, r"box=\[0, 0, 2, 1\]: give .*from 0 to 1"),
        ({"regions": [{"prompt": "a", "box": [0.5, 0, 0.5, 1]}]}, "is empty; give left < right"),
        ({"regions": [{"prompt": "a", "polygon": [[0, 0], [1, 1]]}]}, "give three corners or more"),
        ({"regions": [{"prompt": "a", "polygon": [[0, 0], [1, 1], 3]}]}, "give .x, y. as shares"),
        ({"regions": [{"prompt": "a", "mask": "none.png"}]}, r"mask=.*none.png: cannot be read \(No such file"),
        ({"regions": [{"prompt": "a", "mask": "layout.json"}]}, "cannot be read .not a picture"),
        ({"regions": [{"prompt": "a", "mask": "rgb.png"}]}, "is RGB; save it in greyscale"),
        ({"regions": [{"prompt": "a", "mask": "small.png"}]}, "is 8x8 px, the picture 128x64; give one of its size"),
        ({"regions": [{"prompt": "a", "box": [0.01, 0.01, 0.03, 0.03]}]}, r"region 1 \(a\) covers no latent cell"),
        ({"regions": [BOX, {**BOX, "prompt": "b"}]}, r"region 1 \(a\) and region 2 \(b\) overlap in 64 latent cells"),
        ({"background": "a sea", "regions": [BOX]}, "its background is 'a sea', not 'a lake'; give that as the prompt"),
    ],
)
def test_what_no_canvas_can_follow_is_refused_in_one_line(tiny, tmp_path, content, message):
    Image.new("RGB", (128, 64)).save(tmp_path / "rgb.png")
    Image.new("L", (8, 8)).save(tmp_path / "small.png")
    refused(tiny, write(tmp_path, content), message)


def refused(tiny, layout: str, message: str) -> None:
    method = METHODS["multidiffusion"]
    with pytest.raises(UsageError, match=message) as caught:
        method.sample_latents(tiny, [PROMPT], [SEED], method.settings(**COMMON, layout=layout))
    assert "\n" not in str(caught.value) and str(caught.value).startswith("layout=")


def test_files_that_are_no_layout_are_refused_in_one_line(tiny, tmp_path):
    refused(tiny, str(tmp_path / "none.yaml"), "cannot be read .No such file")
    refused(tiny, str(tmp_path), "no layout in that folder")
    (tmp_path / "bad.yaml").write_text("regions: [\n:")
    refused(tiny, str(tmp_path / "bad.yaml"), "neither YAML nor JSON")
    (tmp_path / "bad.yaml").write_text("background: 2024-13-45")  # a date to YAML, and none
    refused(tiny, str(tmp_path / "bad.yaml"), "neither YAML nor JSON")
    (tmp_path / "two").mkdir()
    for background in ("a sea", "hills"):
        write(tmp_path / "two", {"background": background, "regions": [BOX]}, f"{background}.json")
    refused(tiny, str(tmp_path / "two"), "none there is for 'a lake'; give one of 'a sea', 'hills' as the prompt")
    with pytest.raises(UsageError, match="bootstrapping=0.5: is of a layout's regions"):
        METHODS["multidiffusion"].settings(bootstrapping=0.5)
