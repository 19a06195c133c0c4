"""FD-DINOv2: FID's distance on DINOv2 features of the random crops (Stein et al., NeurIPS 2023). Lower, from 0.

It agrees with people better than FID where pictures are no photographs of ImageNet's classes, and falls with n as FID
does. Only where it is named in `metrics.metrics`: its network is `metrics.dino`.
"""

from experiments.metrics.definitions.fid import fid, fid_difference
from experiments.metrics.estimates import Estimate
from experiments.metrics.features import DINOV2, two_of_each
from experiments.metrics.metric import Metric, SetMetric

METRIC = SetMetric(
    name="fd_dinov2",
    place=12,
    measurement=DINOV2,
    column=Metric("fd_dinov2", "FD-DINOv2", "lower", per_panorama=False, depends_on_n=True),
    enough=two_of_each,
    estimate=lambda x, y, config: Estimate(fid(x.features, y.features), None),
    compare=lambda a, b, y, config: fid_difference(a.features, b.features, y.features),
    on_request=True,
)
