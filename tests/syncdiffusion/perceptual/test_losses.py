"""What windows may be pulled toward: anchors, a picture, a colour, a text, a loss of one's own; each by hand."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from baselines.released.literal import Ddim, cut, decoded, guided_noise, views_of
from syncdiffusion.backbones.loading import load_backbone
from syncdiffusion.cost import Square
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.noise import initial_noise
from syncdiffusion.perceptual.catalogue import LOSSES, ImageLoss, register_loss
from syncdiffusion.perceptual.distances import load_perceptual
from syncdiffusion.sync import METHOD, SyncDiffusionSettings
from tests.baselines.counting import check_calls

REPOSITORY = Path(__file__).parents[3]
PROMPT = "a lake"


def settings(**changes) -> SyncDiffusionSettings:
    common = {"height": 64, "width": 96, "steps": 2, "stride": 4, "guidance_scale": 3.0, "window_batch": 3}
    return SyncDiffusionSettings(**{**common, "loss": "colour", "weight": 5.0, "gradient_batch": 2, **changes})


def first_pull(tiny, chosen):
    """What the first step saw, the canvas it saw, and its DDIM schedule."""
    pulls = []
    METHOD.sample_latents(tiny, [PROMPT], [3], chosen, on_pull=pulls.append)
    return pulls[0]


@pytest.fixture(scope="module")
def exact(tiny):
    """In float64: in float32 a pixel at the clamp's edge may fall on either side, by the order of a CPU's sums."""
    return load_backbone(tiny.model_id, device="cpu", precision="float64")


def foreseen_by_hand(tiny):
    """Leaves and foreseen images of the two windows at the first step."""
    canvas, ddim = initial_noise([PROMPT], [3], (4, 8, 12)).to(tiny.dtype), Ddim(2)
    text, empty = tiny.encode_prompts([PROMPT]), tiny.encode_prompts([""])
    leaves = [cut(canvas, *view, 8).requires_grad_() for view in views_of(8, 12, 8, 4)]
    t = ddim.timesteps[0]
    return leaves, [decoded(tiny, ddim.foreseen(x, guided_noise(tiny, x, t, text, empty, 3.0), t)) for x in leaves]


def check_gradients(tiny, pull, distance):
    """Every window moved, each by the gradient of `distance(image)`."""
    leaves, images = foreseen_by_hand(tiny)
    assert pull.windows == (0, 1) and pull.anchor_images.shape == (1, 0, 3, 64, 64)
    for j, (leaf, image) in enumerate(zip(leaves, images, strict=True)):
        loss = distance(image)
        gradient = torch.autograd.grad(loss, leaf)[0]
        assert pull.distances[0, j].item() == pytest.approx(loss.item(), rel=1e-4)
        torch.testing.assert_close(
            pull.gradients[0, j], gradient[0], rtol=1e-3, atol=1e-5 * float(gradient.abs().max())
        )
        assert gradient.abs().max() > 0


def test_toward_a_colour(exact):
    goal = torch.tensor([255, 165, 0]) / 255  # CSS's orange
    pull = first_pull(exact, settings(toward="orange"))
    check_gradients(exact, pull, lambda image: (image.mean(dim=(0, 2, 3)) - goal).square().sum())


def test_toward_the_central_square_of_a_picture(exact, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mood.png")
    goal = torch.from_numpy(pixels[:, 32:96]).double().mean(dim=(0, 1)).float() / 255
    pull = first_pull(exact, settings(toward_picture=str(tmp_path / "mood.png")))
    check_gradients(exact, pull, lambda image: (image.mean(dim=(0, 2, 3)) - goal).square().sum())


def test_toward_a_text_along_clips_direction(exact):
    open_clip = pytest.importorskip("open_clip")
    from syncdiffusion.perceptual.clip import MINI_CLIP

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{MINI_CLIP}")
    tokens = open_clip.get_tokenizer(f"local-dir:{MINI_CLIP}")(["a lake at night", PROMPT])
    model.eval().requires_grad_(False).double()
    night, prompt = torch.nn.functional.normalize(model.encode_text(tokens), dim=-1)
    direction = torch.nn.functional.normalize(night - prompt, dim=-1)

    def distance(image):
        larger = torch.nn.functional.interpolate(image, (128, 128), mode="bicubic", antialias=True).clamp(0, 1)
        seen = model.encode_image((larger - 0.5) / 0.5)  # the configuration's mean and deviation
        return 1 - (torch.nn.functional.normalize(seen, dim=-1) @ direction).sum()

    check_gradients(exact, first_pull(exact, settings(loss="mini_clip", toward="a lake at night")), distance)
    # open_clip's own preprocessing of a picture of its size gives the same embedding.
    pixels = np.random.default_rng(1).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    theirs = model.float().encode_image(preprocess(Image.fromarray(pixels))[None])
    ours = load_perceptual("mini_clip").features(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)[0]
    torch.testing.assert_close(ours, torch.nn.functional.normalize(theirs, dim=-1), atol=1e-5, rtol=0)


def test_toward_several_anchors_is_toward_the_mean_of_their_distances(tiny):
    both, left, right = (first_pull(tiny, settings(width=128, stride=4, anchor=anchor)) for anchor in ("0+2", 0, 2))
    assert both.windows == (1,) and both.anchor_images.shape == (1, 2, 3, 64, 64)
    middle = {pull.windows: pull.windows.index(1) for pull in (left, right)}
    of = {name: (getattr(left, name)[:, middle[left.windows]] + getattr(right, name)[:, middle[right.windows]]) / 2
          for name in ("distances", "gradients")}  # fmt: skip
    torch.testing.assert_close(both.distances[:, 0], of["distances"], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(both.gradients[:, 0], of["gradients"], rtol=1e-3, atol=1e-7)
    assert torch.equal(both.anchor_images[:, 0], left.anchor_images[:, 0])


def test_a_stronger_pull_comes_nearer(tiny):
    """What it is for: the finished panorama is nearer to the colour."""
    goal = torch.tensor([255, 165, 0]) / 255
    far, near = (
        METHOD.generate(tiny, [PROMPT], [3], settings(steps=4, toward="orange", weight=weight))[0].mean(dim=(1, 2))
        for weight in (0.0, 300.0)
    )
    assert (near - goal).norm() < 0.97 * (far - goal).norm()


@pytest.mark.parametrize("changes", [{"anchor": "0+2", "width": 128}, {"toward": "orange"}], ids=str)
def test_calls_are_what_the_networks_saw(tiny, monkeypatch, changes):
    chosen = {"height": 64, "width": 96, "steps": 3, "stride": 4, "loss": "colour", "first_n": 2}
    from tests.baselines.counting import Flat

    monkeypatch.setattr(Flat, "features_of", lambda self, words, prompts: [torch.zeros(1, 3, 64, 64)], raising=False)
    check_calls(tiny, monkeypatch, "syncdiffusion", {**chosen, **changes})


def test_a_picture_is_looked_at_once(tmp_path):
    square = Square(8, 8)
    plain = settings(toward="orange")
    pictured = settings(toward_picture=str(tmp_path / "mood.png"))
    assert METHOD.calls(pictured, square).loss == METHOD.calls(plain, square).loss + 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"toward": "orange", "loss": "lpips_vgg"}, "toward=orange: loss=lpips_vgg understands no words; .*colour"),
        ({"toward": "orange", "toward_picture": "a.png"}, "toward=orange, toward_picture=a.png: .* one of them"),
        ({"toward": "orange", "anchor": 0}, "toward=orange, anchor=0: .* one of them"),
        ({"toward": " "}, "toward= : is empty"),
        ({"loss": "l2"}, "loss=l2: use one of lpips_vgg, lpips_alex, style, colour, mini_clip, clip"),
    ],
)
def test_goals_that_cannot_be_are_refused_at_once(changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        settings(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"toward": "orangish"}, "toward=orangish: no colour"),
        ({"toward_picture": "missing.png"}, "toward_picture=missing.png: no such file"),
        ({"toward_picture": __file__}, "toward_picture=.*test_losses.py: is no picture"),
        ({"toward": PROMPT, "loss": "mini_clip"}, "toward=a lake: is the prompt itself"),
        ({"anchor": "0+5"}, "anchor=5: use 0 to 1"),
        ({"anchor": "0+0"}, r"anchor=0\+0: a window is named twice"),
        ({"anchor": "left"}, "anchor=left: give a window's number, or several"),
    ],
)
def test_goals_that_are_not_there_are_refused_in_one_line(tiny, changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        METHOD.sample_latents(tiny, [PROMPT], [3], settings(**changes))
    assert "\n" not in str(caught.value)


def test_the_example_of_contributing_runs(tiny, tmp_path):
    """Its code from the document, loaded as a plugin, pulls a panorama's brightness to where it is told."""
    from experiments.plan.plugins import load_plugins

    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    code = re.search(r"### A loss to pull along.*?```python\n(.*?)```", text, re.DOTALL)[1]
    (tmp_path / "brightness.py").write_text(code)
    try:
        load_plugins([str(tmp_path / "brightness.py")])
        images = [
            METHOD.generate(tiny, [PROMPT], [3], settings(loss="brightness", toward=toward, weight=2000.0, steps=4))
            for toward in ("0.2", "0.8")
        ]
        assert images[0].mean() + 0.01 < images[1].mean()
        with pytest.raises(UsageError, match="loss brightness: there is one of that name"):
            register_loss(ImageLoss("brightness", lambda device, dtype: None))
    finally:
        LOSSES.pop("brightness", None)
