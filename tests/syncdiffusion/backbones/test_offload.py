"""Networks that move to the device as they are used: when they come and go, and that the panorama stays the same."""

from dataclasses import replace

import pytest
import torch

from baselines import METHODS
from syncdiffusion.backbones.loading import load_backbone
from syncdiffusion.backbones.offload import Offload
from syncdiffusion.errors import UsageError

PROMPT = "a lake"
CHOSEN = {"height": 64, "width": 96, "steps": 2, "stride": 4}


class Moved(torch.nn.Linear):
    """A network that notes where it is moved to."""

    def __init__(self):
        super().__init__(2, 2)
        self.places = []

    def to(self, *arguments, **named):
        self.places.append(str(arguments[0]))
        return super().to(*arguments, **named)


def test_a_network_comes_with_its_first_use():
    first, second = Moved(), Moved()
    offload = Offload({"unet": first, "vae": second}, torch.device("meta"))  # the one other device of every machine
    assert first.places == second.places == ["cpu"]
    first(torch.ones(1, 2))
    assert (first.places, second.places) == (["cpu", "meta"], ["cpu"])
    assert first.weight.device.type == "meta" and second.weight.device.type == "cpu"
    offload.leave("vae", "text_encoder_2")
    assert second.places == ["cpu", "cpu"]


def test_text_encoders_leave_after_the_prompts_and_the_unet_before_the_canvas_is_decoded(tiny_xl):
    noted = []

    class Noting:
        def leave(self, *names):
            noted.append(names)

    hook = tiny_xl.unet.register_forward_pre_hook(lambda *_: noted.append("unet used"))
    try:
        METHODS["multidiffusion"].generate(
            replace(tiny_xl, offload=Noting()), [PROMPT], [0], METHODS["multidiffusion"].settings(**CHOSEN)
        )
    finally:
        hook.remove()
    assert noted[0] == ("text_encoder", "text_encoder_2") and noted[-1] == ("unet",)
    assert noted.index("unet used") > noted.index(noted[0]) and noted[-2] == "unet used"
    assert noted.count(("unet",)) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [({"device": "cpu"}, "offload=true: a cpu has no memory"), ({"device": "meta", "compiled": True}, "compiled=true")],
)
def test_where_it_can_do_nothing_it_is_refused_in_a_line(tiny_folder, options, words):
    with pytest.raises(UsageError) as told:
        load_backbone(str(tiny_folder), offload=True, **options)
    assert words in str(told.value) and "\n" not in str(told.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", ["multidiffusion", "syncdiffusion"])
def test_on_a_gpu_the_panorama_is_the_same(tiny_xl_folder, name):
    method = METHODS[name]
    others = {"loss": "colour", "first_n": 1} if name == "syncdiffusion" else {}
    made = []
    for offload in (False, True):
        backbone = load_backbone(str(tiny_xl_folder), device="cuda", precision="float32", offload=offload)
        made.append(method.generate(backbone, [PROMPT], [0], method.settings(**CHOSEN, **others)))
        if offload:
            assert {next(each.parameters()).device.type for each in (backbone.unet, backbone.text_encoder)} == {"cpu"}
    torch.testing.assert_close(*made, atol=1e-5, rtol=0)
