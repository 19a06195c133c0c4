"""diffusers' arguments of the pipeline, each held to another way of saying the same."""

import pytest
import torch

from baselines import METHODS
from syncdiffusion.errors import UsageError
from syncdiffusion.joint.noise import initial_noise
from tests.metric_networks import load_or_skip
from tests.syncdiffusion.pipelines import opened, seeded

QUICK = {"height": 64, "width": 96, "num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "latent"}
OURS = {"method": "multidiffusion", "stride": 4}
BATCHES = 1e-5  # rows in another batch: float32's rounding in two steps


@pytest.fixture(scope="module")
def pipe(tiny_folder):
    return opened(tiny_folder)


@pytest.fixture(scope="module")
def latents(pipe):
    """Of a call, by the changes to it."""

    def made(prompt="a", **changes):
        return pipe(prompt, **(QUICK | OURS | changes)).images

    return made


def near(a, b) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() < BATCHES)


def test_names_of_diffusers_are_settings_by_other_names(latents):
    theirs = latents(seed=1, view_batch_size=2, circular_padding=True, eta=1.0)
    ours = latents(seed=1, num_inference_steps=None, steps=2, window_batch=2, loop_closure="full", sampler="ddpm")
    assert torch.equal(theirs, ours)
    assert (theirs - latents(seed=1, circular_padding=True)).abs().max() > 1e-2


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_takes_what_a_callback_makes_of_its_latents(pipe, name):
    """Zeros after the last step are what comes out. Where windows keep latents of their own, that is refused."""
    seen, method = [], METHODS[name]
    if name == "syncdiffusion":
        load_or_skip("lpips_alex")
    options = {"loss": "lpips_alex"} if name == "syncdiffusion" else {}
    width = 128 if name in ("spotdiffusion", "stochsync") else 96
    sizes = method.sizes(pipe_square(pipe)) | {"width": width}
    if "overlap" in [each for each in method.settings.__dataclass_fields__]:
        options["overlap"] = 0.5

    def callback(pipe, index, timestep, tensors):
        seen.append(tensors["latents"].shape)
        return {"latents": torch.zeros_like(tensors["latents"])}

    call = {**QUICK, **sizes, **options, "method": name, "callback_on_step_end": callback}
    if method.own_latents:
        with pytest.raises(ValueError, match=f"^callback_on_step_end: changes latents, and windows of {name}"):
            pipe("a", **call)
        return
    found = pipe("a", **call).images
    assert set(seen) == {(1, 4, 8, width // 8)} and found.shape == seen[0]
    if name not in ("cdgs", "stochsync"):  # the one goes on with another candidate, the other puts back what it keeps
        assert not found.any()


def pipe_square(pipe):
    from syncdiffusion.cost import Square

    return Square(pipe.unet.config.sample_size, 8)


def test_a_callback_sees_steps_and_changes_texts(pipe, latents):
    """After a step with one text, the other: as if latents of the first had been put into a run with the second."""
    first, told = [], []

    def watch(pipe, index, timestep, tensors):
        told.append((index, timestep, pipe.num_timesteps, pipe.guidance_scale))
        first.append(tensors["latents"].clone())
        return {}

    plain = latents(seed=1, callback_on_step_end=watch)
    assert torch.equal(plain, latents(seed=1)) and torch.equal(first[1], plain)
    assert [(i, n, g) for i, _, n, g in told] == [(0, 2, 3.0), (1, 2, 3.0)] and told[0][1] > told[1][1]
    other = pipe.encode_prompt(["b"], "cpu", 1, False)[0]
    names = ("latents", "prompt_embeds", "negative_prompt_embeds")
    changed = latents(
        seed=1,
        callback_on_step_end=lambda pipe, index, t, tensors: {"prompt_embeds": other},
        callback_on_step_end_tensor_inputs=names,
    )
    put = latents(
        "b", seed=1, callback_on_step_end=lambda pipe, index, t, tensors: {"latents": first[0]} if index == 0 else {}
    )
    assert torch.equal(changed, put) and (changed - plain).abs().max() > 1e-4


def test_a_callback_ends_sampling(latents):
    first = []

    def stop(pipe, index, timestep, tensors):
        first.append(tensors["latents"].clone())
        pipe._interrupt = True
        return tensors

    assert torch.equal(latents(seed=1, callback_on_step_end=stop), first[0]) and len(first) == 1


def test_noise_by_seed_by_generator_and_by_hand(pipe, latents):
    alone = [latents(seed=1), latents(seed=2)]
    assert near(latents(seed=1, num_images_per_prompt=2), torch.cat(alone))
    assert near(latents(["a", "a"], seed=[2, 1]), torch.cat(alone[::-1]))
    assert torch.equal(latents(latents=initial_noise(["a"], [1], (4, 8, 12))), alone[0])
    noise = torch.randn(2, 4, 8, 12, generator=seeded(5))
    both = latents(generator=seeded(5), num_images_per_prompt=2)
    assert near(both, latents(latents=noise, num_images_per_prompt=2))
    one_each = [torch.randn(1, 4, 8, 12, generator=seeded(i)) for i in (5, 6)]
    assert near(latents(generator=[seeded(5), seeded(6)], num_images_per_prompt=2),
                latents(latents=torch.cat(one_each), num_images_per_prompt=2))  # fmt: skip


def test_a_generator_decides_all_noise_and_goes_on_as_in_diffusers(latents):
    generator = seeded(5)
    first, second = (latents(generator=generator, eta=1.0) for _ in range(2))
    assert torch.equal(first, latents(generator=seeded(5), eta=1.0))
    assert (first - latents(generator=seeded(6), eta=1.0)).abs().max() > 1e-2
    # With the same initial noise, what else a picture draws is the generator's too.
    noise = torch.randn(1, 4, 8, 12, generator=seeded(0))
    drawn = [latents(latents=noise, generator=seeded(i), eta=1.0) for i in (5, 6)]
    assert (drawn[0] - drawn[1]).abs().max() > 1e-2
    after = seeded(5)
    torch.randn(1, 4, 8, 12, generator=after)
    assert torch.equal(second, latents(generator=after, eta=1.0))


def test_embeddings_in_place_of_texts(pipe, latents):
    positive, negative = pipe.encode_prompt(["a"], "cpu", 1, True, ["b"])
    text = latents(seed=1, negative_prompt="b")
    noise = {"latents": initial_noise(["a"], [1], (4, 8, 12))}
    assert torch.equal(latents(None, prompt_embeds=positive, negative_prompt_embeds=negative, **noise), text)
    assert torch.equal(latents(None, prompt_embeds=positive, negative_prompt="b", **noise), text)
    listed = latents(["a", "a"], seed=1, negative_prompt=["b", ""])
    assert near(listed, torch.cat([text, latents(seed=1)])) and (listed[0] - listed[1]).abs().max() > 1e-4


def test_layers_of_the_text_encoder_left_out(pipe, latents):
    """The random encoder has one; what is left are its embeddings, through the last norm."""
    tokens = pipe.tokenizer(["a"], padding="max_length", max_length=16, truncation=True, return_tensors="pt").input_ids
    states = pipe.text_encoder.final_layer_norm(pipe.text_encoder.embeddings(tokens))
    noise = {"latents": initial_noise(["a"], [1], (4, 8, 12))}
    assert near(latents(clip_skip=1, **noise), latents(None, prompt_embeds=states.detach(), **noise))
    assert near(latents(clip_skip=0, **noise), latents(**noise))


def test_up_to_a_scale_of_one_there_is_no_guidance(latents):
    without = latents(seed=1, guidance_scale=0.0)
    assert torch.equal(without, latents(seed=1, guidance_scale=1.0))
    assert near(without, latents(seed=1, guidance_scale=1.0, negative_prompt="b"))


def test_a_callback_cannot_change_the_texts_of_a_layout(latents, tmp_path):
    layout = tmp_path / "layout.yaml"
    layout.write_text("regions:\n- {prompt: a city, box: [0, 0, 0.5, 1]}\n")
    names = ["prompt_embeds", "negative_prompt_embeds"]

    def call(change):
        options = {"callback_on_step_end": lambda pipe, i, t, seen: change(seen), "seed": 1, "layout": str(layout)}
        return latents(callback_on_step_end_tensor_inputs=names, **options)

    assert torch.equal(call(lambda seen: {}), call(lambda seen: seen))
    with pytest.raises(ValueError, match="^callback_on_step_end: changes prompt_embeds, and a layout's regions"):
        call(lambda seen: {"prompt_embeds": 2 * seen["prompt_embeds"]})


def test_embeddings_of_other_lengths_are_refused(pipe):
    positive, negative = pipe.encode_prompt("a lake", torch.device("cpu"), 1, True, "")
    with pytest.raises(ValueError, match=r"^negative_prompt_embeds: the prompt has \d+ tokens, the negative one 3;"):
        pipe("a lake", negative_prompt_embeds=negative[:, :3], num_inference_steps=1)


REFUSALS = [
    ({"num_inference_steps": 0}, "^num_inference_steps=0: use 1 to 1000$"),
    ({"view_batch_size": 0}, "^view_batch_size=0: use 1 or more"),
    ({"steps": 3}, "^num_inference_steps=2, steps=3: are the same setting"),
    ({"circular_padding": True, "loop_closure": "off"}, "^circular_padding=True, loop_closure=off: are the same"),
    ({"circular_padding": True, "method": "sync_sde"}, "^circular_padding=True: sync_sde makes no closed"),
    ({"eta": 0.5}, "^eta=0.5: use 0, or with DDIMScheduler 1"),
    ({"eta": 1.0, "sampler": "euler"}, "^eta=1.0: use 0"),
    ({"method": "nonsense"}, "^method=nonsense: use one of blended_latent"),
    ({"weight": 3.0}, "^weight=3.0: multidiffusion has no such setting; it has height"),
    ({"clip_skip": 9}, "^clip_skip=9: use 0 to 1"),
    ({"guidance_rescale": 0.7}, "^guidance_rescale=0.7: is not there"),
    ({"ip_adapter_image": torch.zeros(1)}, "^ip_adapter_image=.*: IP-Adapters are not there"),
    ({"timesteps": [1, 2]}, r"^timesteps=\[1, 2\]: .*give num_inference_steps"),
    ({"callback": print}, "^callback=.*: was replaced .*give callback_on_step_end"),
    ({"callback_on_step_end": print, "callback_on_step_end_tensor_inputs": ["x"]}, "tensor_inputs=x: use one of"),
    ({"seed": 1, "generator": torch.Generator()}, "^seed=1, generator: .*give one of them"),
    ({"seed": [1, 2, 3]}, r"^seed=\[1, 2, 3\]: give one"),
    ({"seed": 1.5}, r"^seed=1.5: give a whole number, or several$"),
    ({"seed": [1.7]}, r"^seed=\[1.7\]: give a whole number"),
    ({"seed": "3"}, "^seed=3: give a whole number"),
    ({"generator": 42}, "^generator=42: give one torch.Generator"),
    ({"circular_padding": "no"}, "^circular_padding=no: use True or False"),
    ({"generator": [torch.Generator()] * 2}, "^generator=.*one for each of 1 images"),
    ({"latents": torch.zeros(1, 4, 8, 8)}, r"^latents: their shape is \[1, 4, 8, 8\]; give \[1, 4, 8, 12\]"),
    ({"prompt_embeds": torch.zeros(1, 16, 16)}, "^prompt=a, prompt_embeds: give one of them"),
    (
        {"prompt": None, "prompt_embeds": torch.zeros(1, 16, 8)},
        r"^prompt_embeds: their shape is .*give \[1, tokens, 16\]",
    ),
    ({"prompt": None}, "^prompt: none given"),
    ({"prompt": []}, r"^prompt=\[\]: give a text"),
    ({"negative_prompt": ["a", "b"]}, "^negative_prompt: 2 of them for 1 prompts"),
    ({"num_images_per_prompt": 0}, "^num_images_per_prompt=0: use 1 or more"),
    ({"clip_skip": 1, "layout": "none.yaml"}, "^clip_skip=1: does not go with a layout"),
]


@pytest.mark.parametrize(("changes", "words"), REFUSALS, ids=[words.strip("^")[:40] for _, words in REFUSALS])
def test_what_cannot_be_is_refused_in_one_line(latents, changes, words):
    with pytest.raises(ValueError, match=words) as caught:
        latents(**changes)
    assert isinstance(caught.value, UsageError) and "\n" not in str(caught.value)


def test_what_asks_for_nothing_is_taken(latents):
    nothing = {
        "guidance_rescale": 0.0,
        "ip_adapter_image": None,
        "timesteps": None,
        "callback": None,
        "clip_skip": None,
    }
    assert torch.equal(latents(seed=1, **nothing), latents(seed=1))


def test_a_callback_cannot_change_the_guidance(pipe, latents):
    def change(pipe, index, timestep, tensors):
        pipe._guidance_scale = 0.0
        return tensors

    with pytest.raises(UsageError, match="^callback_on_step_end: changes guidance_scale"):
        latents(callback_on_step_end=change)
