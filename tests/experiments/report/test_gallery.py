"""Sheets of panoramas: their sizes, by arithmetic."""

import pytest
from PIL import Image

from experiments.panoramas.store import Unit
from experiments.report.gallery import CELL_WIDTH, GAP, TEXT, write_comparison


@pytest.mark.parametrize(("methods", "prompts"), [(3, 6), (16, 1), (30, 1)])
def test_a_comparison_stays_a_picture_that_one_looks_at(tmp_path, methods, prompts):
    """Six prompts of few methods, one prompt of many; the methods of a prompt stand below each other."""
    labels = {f"m{i}": f"m{i}" for i in range(methods)}
    units = [Unit(label, "multidiffusion", {}, f"prompt {p}", 0) for p in range(6) for label in labels]
    with Image.open(write_comparison(tmp_path, units, labels)) as made:
        block = TEXT + 2 * GAP + (CELL_WIDTH // 6 + GAP) * methods
        assert made.height == GAP + block * prompts
