"""Windows against the counts of PROTOCOL.md, section 1, and against loops over cells."""

import pytest
import torch

from syncdiffusion.errors import UsageError
from syncdiffusion.geometry.sizes import check_pixels
from syncdiffusion.geometry.windows import place_windows


@pytest.mark.parametrize(("stride", "count"), [(8, 41), (16, 21), (32, 11), (64, 6)])
def test_the_papers_canvas_has_the_published_number_of_windows(stride, count):
    windows = place_windows(64, 384, 64, stride)
    assert len(windows) == count
    assert windows.corners[0] == (0, 0) and windows.corners[-1] == (0, 320)


def test_the_miniature_is_the_papers_geometry_divided_by_four():
    windows = place_windows(16, 96, 16, 4)
    assert len(windows) == 21
    assert windows.corners[len(windows) // 2] == (0, 40)


@pytest.mark.parametrize(
    ("height", "width", "size", "stride", "loop"),
    [(16, 96, 16, 4, "off"), (24, 40, 8, 4, "off"), (8, 8, 8, 3, "off"), (20, 29, 8, 3, "off")]
    + [(16, 64, 16, 4, kind) for kind in ("released", "full")],
)
def test_cropping_and_fusing_equal_a_loop_over_windows(height, width, size, stride, loop):
    windows = place_windows(height, width, size, stride, loop)
    canvas = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    values = torch.randn(2, len(windows), 3, size, size, generator=torch.Generator().manual_seed(1))

    total, count = torch.zeros_like(canvas), torch.zeros_like(canvas)
    crops = windows.crop(canvas)
    for j, (top, left) in enumerate(windows.corners):
        for y in range(size):
            for x in range(size):
                at = (top + y, (left + x) % width)
                assert torch.equal(crops[:, j, :, y, x], canvas[:, :, at[0], at[1]])
                total[:, :, at[0], at[1]] += values[:, j, :, y, x]
                count[:, :, at[0], at[1]] += 1

    assert count.min() >= 1  # no cell is left out, the edges neither
    # sums of up to 16 float32 values in another order
    torch.testing.assert_close(windows.fuse(values), total / count, rtol=1e-6, atol=1e-6)


def test_fusing_what_was_cropped_gives_the_canvas_back():
    windows = place_windows(16, 96, 16, 4, "full")
    canvas = torch.randn(1, 4, 16, 96, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(windows.fuse(windows.crop(canvas)), canvas, rtol=1e-6, atol=1e-6)


def test_loop_closure_covers_the_seam_as_released_and_in_full():
    def coverage(kind):
        windows = place_windows(64, 384, 64, 16, kind)
        return len(windows), torch.bincount(windows._cells(torch.device("cpu")).flatten(), minlength=64 * 384)[:384]

    assert coverage("released")[0] == 21 + 64 // 16 - 2
    count, full = coverage("full")
    assert count == 384 // 16
    assert set(full.tolist()) == {4}  # every cell alike
    assert coverage("released")[1].min() < 4


@pytest.mark.parametrize("width", [16, 20, 24, 28, 32])
def test_a_loop_may_be_as_narrow_as_a_window(width):
    for closure, count in (("released", width // 4 - 1), ("full", width // 4)):
        windows = place_windows(16, width, 16, 4, closure)
        assert len(windows) == count
        columns = [(left + i) % width for _, left in windows.corners for i in range(16)]
        covered = {columns.count(column) for column in range(width)}
        assert covered == ({4} if closure == "full" else {3, 4} if width > 16 else {3})


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ((16, 97, 16, 4), ("width=97", "nearest that they can: 96")),
        ((15, 96, 16, 4), ("height=15", "nearest that they can: 16")),
        ((16, 96, 16, 0), ("stride=0", "1 to 16")),
        ((16, 96, 16, 17), ("stride=17", "1 to 16")),
        ((16, 96, 16, 4, "yes"), ("loop_closure=yes", "off, released, full")),
        ((32, 96, 16, 4, "full"), ("loop_closure=full", "one window high")),
        ((16, 96, 16, 5, "full"), ("stride=5",)),
        ((16, 96, 16, 8, "released"), ("loop_closure=released", "stride=8", "5 or less", "loop_closure=full")),
    ],
)
def test_what_windows_cannot_cover_is_refused_in_one_line(arguments, names):
    with pytest.raises(UsageError) as error:
        place_windows(*arguments)
    assert all(name in str(error.value) for name in names), str(error.value)
    assert "\n" not in str(error.value)


def test_pixels_name_the_nearest_width_that_can_be_covered():
    assert check_pixels("width", 768, 8, 16, 4) == 96
    for pixels, nearest in ((100, 128), (770, 768), (760, 768), (785, 800)):
        with pytest.raises(UsageError, match=f"width={pixels}.*nearest that they can: {nearest}$"):
            check_pixels("width", pixels, 8, 16, 4)
