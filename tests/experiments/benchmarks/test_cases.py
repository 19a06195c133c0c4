"""The cases: the miniature's numbers, Stable Diffusion 2.0's size, and who is refused."""

import pytest
import torch

from experiments.benchmarks.cases import RandomTextBackbone, find_case, mini_case
from experiments.common.architectures import UNET_2, VAE
from syncdiffusion.errors import UsageError


def test_the_miniature_has_the_numbers_of_its_configuration():
    timed = mini_case().timed[0]
    assert (timed.height, timed.width, timed.stride, timed.steps, timed.first_n) == (128, 768, 4, 25, 10)
    assert (timed.weight, timed.guidance_scale, timed.gradient_batch, timed.loss) == (20, 6, 10, "lpips_vgg")
    assert mini_case().check.steps == 3 and mini_case().check.active(1) and not mini_case().check.active(2)


def test_the_large_case_has_stable_diffusion_2s_size():
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**UNET_2), AutoencoderKL(**VAE)
    assert sum(p.numel() for p in unet.parameters()) == 865_910_724  # as stated by its model card's weights
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863
    assert vae.config.scaling_factor == 0.18215


def test_random_text_states_belong_to_the_prompt(tiny):
    parts = {name: getattr(tiny, name) for name in tiny.__dataclass_fields__}
    backbone = RandomTextBackbone(**parts)
    states = backbone.encode_prompts(["a", "b", "a"])
    assert states.shape == (3, 77, 16)
    assert torch.equal(states[0], states[2]) and not torch.equal(states[0], states[1])


def test_the_large_case_is_for_a_gpu():
    with pytest.raises(UsageError, match="--case sd2.*--allow-cpu"):
        find_case("sd2", "cpu", None, allow_cpu=False)
    assert find_case("sd2", "cpu", "float16", allow_cpu=True).precision == "float16"
    assert [each.first_n for each in find_case("sd2", "cuda", None, allow_cpu=False).timed] == [10, 50]
