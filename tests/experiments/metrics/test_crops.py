"""Crops: where they lie, and that nothing but (prompt, seed) decides it."""

import numpy as np
import pytest
from PIL import Image

from experiments.metrics.crops import decode_image, grid_crops, load_image, random_crop
from syncdiffusion.errors import UsageError


def ruler(height: int, width: int) -> np.ndarray:
    """An image whose red and green say the column and row."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(width)[None, :], np.arange(height)[:, None]
    return image


def test_every_offset_is_reached_including_the_last() -> None:
    image = ruler(12, 16)
    corners = {tuple(random_crop(image, 8, "a photo", seed)[0, 0, :2]) for seed in range(600)}
    assert corners == {(x, y) for x in range(9) for y in range(5)}


def test_the_place_depends_on_prompt_and_seed_alone() -> None:
    image = ruler(8, 200)
    place = {
        (prompt, seed): int(random_crop(image, 8, prompt, seed)[0, 0, 0]) for prompt in ("a", "b") for seed in range(20)
    }
    for (prompt, seed), left in reversed(place.items()):
        assert int(random_crop(image + 0, 8, prompt, seed)[0, 0, 0]) == left
    assert len(set(place.values())) > 20
    assert [place["a", s] for s in range(20)] != [place["b", s] for s in range(20)]


def test_the_places_are_those_of_all_committed_numbers() -> None:
    """Pinned: elsewhere every FID and CLIP score would be another, and features that are kept would be stale."""
    rows, columns = np.mgrid[:200, :900]
    image = np.stack([rows, columns % 256, columns // 256], axis=2).astype(np.uint8)
    places = [random_crop(image, 128, "a photo of a lake", 3, salt)[0, 0].tolist() for salt in (0, 1)]
    assert places == [[52, 19, 1], [62, 98, 0]]


def test_offsets_are_even() -> None:
    counts = np.bincount([random_crop(ruler(4, 13), 4, "p", s)[0, 0, 0] for s in range(5000)])
    assert len(counts) == 10
    # chi-squared with 9 degrees of freedom exceeds 27.9 once in a thousand
    assert np.square(counts - 500).sum() / 500 < 27.9


def test_a_square_image_is_its_own_crop() -> None:
    image = ruler(8, 8)
    np.testing.assert_array_equal(random_crop(image, 8, "p", 3), image)
    assert len(grid_crops(image, 8)) == 1


def test_the_grid_holds_six_crops_of_a_one_to_six_panorama_and_drops_the_rest() -> None:
    crops = grid_crops(ruler(8, 48), 8)
    assert [int(crop[0, 0, 0]) for crop in crops] == [0, 8, 16, 24, 32, 40]
    assert len(grid_crops(ruler(8, 55), 8)) == 6
    corners = [tuple(crop[0, 0, :2]) for crop in grid_crops(ruler(17, 16), 8)]
    assert corners == [(0, 0), (8, 0), (0, 8), (8, 8)]


def test_a_crop_larger_than_the_image_is_refused() -> None:
    for cut in (lambda: random_crop(ruler(8, 48), 9, "p", 0), lambda: grid_crops(ruler(8, 48), 9)):
        with pytest.raises(UsageError, match="metrics.crop=9.*1 to 8"):
            cut()


def test_images_load_as_rgb_and_bad_files_are_named(tmp_path) -> None:
    Image.fromarray(ruler(4, 6)).convert("RGBA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), ruler(4, 6))
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    for name in ("b.png", "none.png"):
        with pytest.raises(UsageError, match=name):
            load_image(tmp_path / name)


def test_a_damaged_picture_is_one_line_that_names_it(tmp_path) -> None:
    """2,000 PNGs with three bytes changed each: read, or refused in one line, whatever Pillow raised."""
    path, random = tmp_path / "a.png", np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    whole, refused = path.read_bytes(), 0
    for _ in range(2000):
        data = bytearray(whole)
        for place in random.integers(0, 100, 3):
            data[place] = random.integers(256)
        try:
            assert decode_image(bytes(data), path).shape[2] == 3
        except UsageError as error:
            refused += 1
            assert str(error).startswith(f"image {path} cannot be read (") and "\n" not in str(error)
    assert refused > 1000


def test_a_picture_of_too_many_pixels_is_refused(tmp_path, monkeypatch) -> None:
    Image.fromarray(ruler(40, 60)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow refuses twice as many
    with pytest.raises(UsageError, match="a.png cannot be read .more pixels than Pillow opens"):
        load_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_rounded_not_clipped(suffix, tmp_path) -> None:
    """257 times an 8-bit value is the same brightness in 16 bits; half of a step away it still rounds to it."""
    values = np.arange(256).reshape(16, 16)
    for offset in (0, 128):
        Image.fromarray(np.minimum(values * 257 + offset, 65535).astype(np.uint16)).save(tmp_path / f"a.{suffix}")
        np.testing.assert_array_equal(load_image(tmp_path / f"a.{suffix}"), np.stack([values] * 3, axis=2))
