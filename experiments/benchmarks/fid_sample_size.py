"""How FID falls with n for two samples of one distribution, and KID does not.

``python -m experiments.benchmarks.fid_sample_size`` writes results/benchmarks/fid_sample_size.csv.

Simulated, since the truth must be known: Gaussian features of 2048 dimensions whose variances fall as 1/k and sum to
TOTAL. FID grows in proportion to that sum, and how it falls with n depends on how fast variances fall; so the file says
that n decides, and by what order, not what any network's FID is.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.common.command_line import one_line_errors
from experiments.common.files import write_whole
from experiments.metrics.definitions.fid import fid
from experiments.metrics.definitions.kid import kid

SIZES = (50, 100, 250, 500, 1000)
DIMENSIONS, TOTAL = 2048, 150.0


def sample(random: np.random.Generator, n: int) -> np.ndarray:
    """(n, DIMENSIONS) features."""
    variances = 1 / np.arange(1, DIMENSIONS + 1)
    return random.standard_normal((n, DIMENSIONS)) * np.sqrt(TOTAL * variances / variances.sum())


def line(n: int, runs: int) -> dict[str, float]:
    """Mean and deviation of FID and KID over `runs` pairs of samples of n."""
    random = np.random.default_rng(n)
    pairs = [(sample(random, n), sample(random, n)) for _ in range(runs)]
    found = {"fid": [fid(*pair) for pair in pairs], "kid": [kid(*pair).value for pair in pairs]}
    columns = {f"{name}_{what}": of(values) for name, values in found.items() for what, of in STATISTICS.items()}
    return {"n": n, "runs": runs, **columns}


STATISTICS = {"mean": lambda values: float(np.mean(values)), "deviation": lambda values: float(np.std(values, ddof=1))}


@one_line_errors()
def main(words: Sequence[str] | None = None) -> int:
    import pandas as pd

    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.fid_sample_size", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), metavar="FOLDER")
    parser.add_argument("--runs", type=int, default=3, help="pairs of samples of each size, 2 or more")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N")
    options = parser.parse_args(words)
    if options.runs < 2 or min(options.sizes) < 2:
        parser.error(f"--runs {options.runs} --sizes {min(options.sizes)}: 2 or more of each")
    lines = pd.DataFrame([line(n, options.runs) for n in options.sizes])
    write_whole(options.out / "fid_sample_size.csv", lines.to_csv(index=False, float_format="%.6g"), "--out")
    print(lines.to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
