"""KD-DINOv2: KID's distance on DINOv2 features of the random crops (Stein et al., NeurIPS 2023). Lower; without bias.

Only where it is named in `metrics.metrics`: its network is `metrics.dino`.
"""

from experiments.metrics.definitions.kid import kid, kid_difference
from experiments.metrics.features import DINOV2, two_of_every_prompt
from experiments.metrics.metric import Metric, SetMetric

METRIC = SetMetric(
    name="kd_dinov2",
    place=22,
    measurement=DINOV2,
    column=Metric("kd_dinov2", "KD-DINOv2", "lower", per_panorama=False),
    enough=two_of_every_prompt,
    estimate=lambda x, y, config: kid(x.features, y.features, x.prompts, y.prompts),
    compare=lambda a, b, y, config: kid_difference(a.features, b.features, y.features, a.prompts, y.prompts),
    on_request=True,
)
