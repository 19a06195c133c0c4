"""MAD: a layer's merged attention against a loop that writes out queries, keys and values; its limits."""

import pytest
import torch

from baselines.mad import METHOD, MadSettings
from baselines.multidiffusion import METHOD as MULTIDIFFUSION
from baselines.multidiffusion import MultiDiffusionSettings
from syncdiffusion.errors import UsageError
from syncdiffusion.geometry.windows import place_windows
from syncdiffusion.joint.attention import attending, merged
from tests.baselines.counting import check_calls

PROMPT = "a photo of a forest"
CANVAS = {"height": 64, "width": 128, "steps": 4, "guidance_scale": 3.0, "stride": 2}


def layers(unet) -> dict[str, torch.nn.Module]:
    """The UNet's first self-attention and its first cross-attention."""
    found = {}
    for name, module in unet.named_modules():
        if name.endswith(("attn1", "attn2")):
            found.setdefault(name[-5:], module)
    return found


def literal(layer, tokens: torch.Tensor, seen: torch.Tensor | None, corners, height: int, width: int) -> torch.Tensor:
    """One panorama, tokens [N, s · s, d]: q, k and v of every window averaged cell by cell, softmax written out."""
    side, heads = round(tokens.shape[1] ** 0.5), layer.heads

    def mean(of_windows: torch.Tensor) -> torch.Tensor:
        total, count = torch.zeros(height * width, of_windows.shape[2]), torch.zeros(height * width, 1)
        for window, (top, left) in zip(of_windows, corners, strict=True):
            for r in range(side):
                for c in range(side):
                    place = (top + r) * width + (left + c) % width
                    total[place] += window[r * side + c]
                    count[place] += 1
        return total / count

    q = mean(layer.to_q(tokens))
    k, v = (
        (mean(layer.to_k(tokens)), mean(layer.to_v(tokens))) if seen is None else (layer.to_k(seen), layer.to_v(seen))
    )
    results = []
    for one_q, one_k, one_v in zip(q.chunk(heads, 1), k.chunk(heads, 1), v.chunk(heads, 1), strict=True):
        share = torch.softmax(one_q @ one_k.T / one_q.shape[1] ** 0.5, dim=1)
        results.append(share @ one_v)
    result = torch.cat(results, dim=1)
    cells = [
        [(top + r) * width + (left + c) % width for r in range(side) for c in range(side)] for top, left in corners
    ]
    return layer.to_out[0](result[torch.tensor(cells)])


@pytest.mark.parametrize("loop_closure", ["off", "full"])
@torch.no_grad()
def test_merged_attention_equals_the_literal_loop(tiny, loop_closure):
    """Tokens of a layer at half the latents' resolution, two kinds of guidance, 1e-5 for sums in another order."""
    windows = place_windows(8, 16, 8, 2, loop_closure)
    halved = [(top // 2, left // 2) for top, left in windows.corners]
    generator = torch.Generator().manual_seed(0)
    found = layers(tiny.unet)
    count, depth = len(windows), found["attn1"].to_q.in_features
    tokens = torch.randn(2 * count, 16, depth, generator=generator)
    words = torch.randn(2, 1, 7, found["attn2"].to_k.in_features, generator=generator).expand(-1, count, -1, -1)
    before = {name: layer(tokens, words.flatten(0, 1) if name == "attn2" else None) for name, layer in found.items()}
    with attending(tiny.unet, windows, merged(windows, True, True)):
        ours = {name: layer(tokens, words.flatten(0, 1) if name == "attn2" else None) for name, layer in found.items()}
    for name, layer in found.items():
        for kind in range(2):
            part = slice(kind * count, (kind + 1) * count)
            seen = words[kind, 0] if name == "attn2" else None
            expected = literal(layer, tokens[part], seen, halved, 4, 8)
            torch.testing.assert_close(ours[name][part], expected, atol=1e-5, rtol=1e-4)
        assert (ours[name] - before[name]).abs().max() > 1e-3


def test_without_merging_or_without_overlap_it_is_multidiffusion(tiny):
    plain = MULTIDIFFUSION.sample_latents(tiny, [PROMPT], [1], MultiDiffusionSettings(**CANVAS))
    ours = METHOD.sample_latents(tiny, [PROMPT], [1], MadSettings(**CANVAS, tau=0.0, merge_cross=False))
    torch.testing.assert_close(ours, plain, atol=1e-4, rtol=0)  # windows go through the network in other batches
    for changed in ({"tau": 0.0}, {"tau": 0.25, "merge_cross": False}, {}):
        assert (METHOD.sample_latents(tiny, [PROMPT], [1], MadSettings(**CANVAS, **changed)) - plain).abs().max() > 1e-3
    # Windows side by side share no token, and one window alone is the whole panorama.
    for canvas, tau in (({"stride": 8}, 0.0), ({"width": 64}, 1.0)):
        same = MULTIDIFFUSION.sample_latents(tiny, [PROMPT], [1], MultiDiffusionSettings(**{**CANVAS, **canvas}))
        merge = METHOD.sample_latents(tiny, [PROMPT], [1], MadSettings(**{**CANVAS, **canvas}, tau=tau))
        torch.testing.assert_close(merge, same, atol=1e-4, rtol=0)


def test_self_attention_is_merged_in_the_first_steps_alone(tiny, monkeypatch):
    merging = []

    def watched(windows, in_self, in_cross):
        merging.append((in_self, in_cross))
        return merged(windows, in_self, in_cross)

    monkeypatch.setattr("syncdiffusion.joint.attention.merged", watched)
    for tau, steps in ((0.5, 2), (0.3, 2), (1.0, 4)):
        merging.clear()
        METHOD.sample_latents(tiny, [PROMPT], [1], MadSettings(**CANVAS, tau=tau))
        assert merging == [(i < steps, True) for i in range(4)]


def test_company_changes_no_panorama(tiny):
    chosen = MadSettings(**{**CANVAS, "steps": 2})
    alone = [METHOD.sample_latents(tiny, [p], [s], chosen) for p, s in ((PROMPT, 0), ("a city", 7))]
    together = METHOD.sample_latents(tiny, [PROMPT, "a city"], [0, 7], chosen)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)


def test_the_unet_is_as_before_also_after_an_error(tiny):
    windows = place_windows(8, 16, 8, 2)
    before = dict(tiny.unet.attn_processors)
    with pytest.raises(UsageError, match="^windows=5: attention across windows needs them all in one pass"):
        with attending(tiny.unet, windows, merged(windows, True, True)):
            assert tiny.unet.attn_processors != before
            tiny.unet(torch.zeros(4, 4, 8, 8), 1, encoder_hidden_states=torch.zeros(4, 16, 16))
    assert tiny.unet.attn_processors == before


def test_windows_that_do_not_fit_into_memory_together_are_refused(tiny):
    """Half of four windows, with and without the prompt, are four rows: they must not be taken for a panorama."""

    def full(module, inputs):
        if len(inputs[0]) > 4:
            raise torch.OutOfMemoryError("for the test")

    before, hook = dict(tiny.unet.attn_processors), tiny.unet.register_forward_pre_hook(full)
    try:
        with pytest.raises(UsageError, match="^windows=4: .*do not fit into memory") as caught:
            METHOD.generate(tiny, [PROMPT], [0], MadSettings(**{**CANVAS, "width": 112}))
    finally:
        hook.remove()
    assert "\n" not in str(caught.value) and tiny.unet.attn_processors == before


def test_calls_and_refusals(tiny, monkeypatch):
    check_calls(tiny, monkeypatch, "mad", {**CANVAS, "steps": 2})
    with pytest.raises(UsageError, match="^stride: merged attention .* a multiple of 2$"):
        METHOD.generate(tiny, [PROMPT], [0], MadSettings(**{**CANVAS, "stride": 1}))
    with pytest.raises(UsageError, match="^width=120: "):
        METHOD.generate(tiny, [PROMPT], [0], MadSettings(**{**CANVAS, "width": 120, "stride": 4}))
    with pytest.raises(UsageError, match="^tau=1.5"):
        MadSettings(tau=1.5)
