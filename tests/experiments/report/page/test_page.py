"""What is written: the same bytes again, pictures by their content, numbers and windows as others compute them."""

import base64
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from experiments.report.page import ASSETS, VIEWER, embedded_json, write_page
from experiments.report.page.overlay import windows_of
from experiments.report.page.pictures import write_image
from experiments.report.page.tables import table_sections
from experiments.report.tables import write_tables
from experiments.results.study import Row, read_results
from tests.experiments.report.page.run_folders import COMPARISONS, PROMPTS, picture, ring_run, with_seeds
from tests.experiments.synthetic import synthetic_results, write_results


def files(folder):
    return {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}


def content_of(page):
    return json.loads(re.search(r'id="content">(.*?)</script>', page.read_text(), re.S)[1])


def test_written_again_it_is_the_same_and_no_picture_is_made_anew(run, tmp_path):
    folder, results = run
    before = {name: path.read_bytes() for name, path in files(folder / "report").items()}
    ages = {path: path.stat().st_mtime_ns for path in (folder / "report" / "images").iterdir()}
    write_page(folder, results)
    assert {name: path.read_bytes() for name, path in files(folder / "report").items()} == before
    assert {path: path.stat().st_mtime_ns for path in (folder / "report" / "images").iterdir()} == ages
    shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("report"))
    write_page(tmp_path / "copy", results)
    assert {name: path.read_bytes() for name, path in files(tmp_path / "copy" / "report").items()} == before


def test_pictures_are_the_panoramas_at_full_size(run):
    folder, results = run
    rows = content_of(folder / "report" / "index.html")["rows"]
    labels = [row.label for row in results.study.rows]
    for made in results.panoramas.itertuples():
        row = next(row for row in rows if (PROMPTS[row["prompt"]], row["seed"]) == (made.prompt, str(made.seed)))
        shown = Image.open(folder / "report" / row["cells"][labels.index(made.method)]["image"])
        png = np.asarray(Image.open(folder / made.file), dtype=float)
        assert shown.format == "WEBP" and shown.size == (768, 128)
        # Each picture's blue is its own (steps of 42 levels); WebP at quality 90 blurs a smooth ramp by about one.
        assert np.abs(np.asarray(shown, dtype=float) - png).mean() < 3


def test_a_new_panorama_adds_one_picture_and_a_missing_or_damaged_one_has_none(run, tmp_path):
    folder, results = run
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    names = {path.name for path in (copy / "report" / "images").iterdir()}
    chosen = list(results.panoramas["file"][:3])
    (copy / chosen[0]).unlink()
    (copy / chosen[1]).write_bytes((copy / chosen[1]).read_bytes()[:500])
    Image.new("RGB", (768, 128), "red").save(copy / chosen[2])
    rows = content_of(write_page(copy, results))["rows"]
    assert len({path.name for path in (copy / "report" / "images").iterdir()} - names) == 1
    images = [cell["image"] for row in rows for cell in row["cells"]]
    assert images.count(None) == 2 and len(images) == len(results.panoramas)


def test_panoramas_may_lie_elsewhere_or_nowhere(run, tmp_path):
    folder, results = run
    scores = tmp_path / "scores"
    with_pictures = content_of(write_page(scores, results, panoramas=folder))
    assert with_pictures["rows"] == content_of(folder / "report" / "index.html")["rows"]
    without = content_of(write_page(tmp_path / "none", results))
    assert all(cell["image"] is None for row in without["rows"] for cell in row["cells"])
    assert not (tmp_path / "none" / "report" / "images").exists()
    assert [section["id"] for section in without["sections"]] == ["results", "by-prompt"]


def test_a_picture_too_wide_for_webp_stays_a_png(tmp_path):
    Image.new("RGB", (16_384, 8)).save(tmp_path / "wide.png")
    png = (tmp_path / "wide.png").read_bytes()
    name = write_image(tmp_path, png)
    assert (
        name.endswith(".png")
        and (tmp_path / name).read_bytes() == png == (tmp_path / write_image(tmp_path, png)).read_bytes()
    )


def test_nothing_names_a_network_address(run):
    for path in files(run[0] / "report").values():
        if path.suffix in (".html", ".js", ".css"):  # rings have a viewer besides, which names its authors' page
            text = path.read_text().replace("http://www.w3.org/2000/svg", "")  # a name, not an address
            assert not re.search(r"https?:|//[a-z]+\.", text), path


def test_embedded_json_cannot_leave_its_element():
    value = {"</script><!--\u2028\u2029&": ["<script>", 1.5, None, "{{ }} שלום 🌄 \\u003c"]}
    text = embedded_json(value)
    assert json.loads(text) == value
    assert not re.search("[<\u2028\u2029\n]", text)
    with pytest.raises(ValueError):
        embedded_json({"a": float("nan")})  # no browser reads it


CANVAS = {"window": 128, "height": 128, "width": 768}


@pytest.mark.parametrize(
    ("height", "width", "stride", "closure"),
    [(128, 768, 4, "off"), (128, 768, 4, "released"), (128, 256, 8, "full"), (192, 384, 2, "off")],
)
def test_windows_are_those_of_the_method(height, width, stride, closure):
    from syncdiffusion.geometry.windows import place_windows

    settings = {"height": height, "width": width, "stride": stride, "loop_closure": closure, "anchor": None}
    found = windows_of(Row("a", "A", "syncdiffusion", settings, None), CANVAS)
    placed = place_windows(height // 8, width // 8, 16, stride, closure)
    assert [[left // 8, top // 8] for left, top in found["boxes"]] == [[left, top] for top, left in placed.corners]
    assert found["size"] == 128 and found["anchors"] == [len(placed) // 2]


def test_windows_scale_with_the_pixels_of_a_latent_cell():
    row = Row("a", "A", "multidiffusion", {"height": 64, "width": 128, "stride": 4}, None)
    found = windows_of(row, {"window": 64, "factor": 4})
    assert found["boxes"] == [[left, 0] for left in range(0, 65, 16)] and found["size"] == 64


def test_anchor_is_the_chosen_one_and_only_where_a_method_has_one():
    settings = {"height": 128, "width": 768, "stride": 4}
    row = Row("a", "A", "syncdiffusion", settings | {"anchor": 0}, None)
    assert windows_of(row, CANVAS)["anchors"] == [0]
    several = replace(row, settings=settings | {"anchor": "2+5"})
    assert windows_of(several, CANVAS)["anchors"] == [2, 5]
    elsewhere = settings | {"anchor": None, "toward": "orange", "loss": "colour"}
    assert windows_of(replace(row, settings=elsewhere), CANVAS)["anchors"] == []
    assert windows_of(replace(row, settings=settings), CANVAS)["anchors"] == []
    assert windows_of(replace(row, method="stable_diffusion", settings={"height": 128, "width": 768}), CANVAS) is None
    assert windows_of(replace(row, method="a plugin that is not there"), CANVAS) is None


def test_of_very_many_prompts_the_tables_of_all_together_alone(run, tmp_path, monkeypatch):
    results = run[1]
    of_one = f"{PROMPTS[0]},multidiffusion,syncdiffusion,intra_lpips,2,0.06,0.04,0.08,0.5,,0.5\n"
    (tmp_path / "comparisons.csv").write_text(COMPARISONS + of_one)
    few = table_sections(tmp_path, results)
    assert [len(section["tables"]) for section in few] == [1, len(PROMPTS), 2]
    monkeypatch.setattr("experiments.report.page.tables.MOST_PROMPTS", len(PROMPTS) - 1)
    many = table_sections(tmp_path, results)
    assert [section["id"] for section in many] == ["results", "comparisons"]
    assert many[0]["tables"] == few[0]["tables"] and many[1]["tables"] == few[2]["tables"][:1]
    said = f"Numbers of each of the {len(PROMPTS)} prompts are in scores.csv and comparisons.csv, not here."
    assert said in many[0]["notes"] and said not in few[0]["notes"]


def test_main_table_holds_means_with_their_intervals(run):
    folder, results = run
    table = table_sections(folder, results)[0]["tables"][0]
    titles = [column["title"].replace("\N{NO-BREAK SPACE}", " ") for column in table["columns"]]
    column = titles.index("Intra-LPIPS ↓")
    for row, cells in zip(results.study.rows, table["rows"], strict=True):
        values = results.panoramas.loc[results.panoramas["method"] == row.label, "intra_lpips"].to_numpy()
        low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
        cell = cells[column]
        assert cell["value"] == pytest.approx(values.mean(), rel=1e-12)
        # Two digits of the half-width are shown, and the mean to the same place.
        half = float(cell["beside"].strip("±† "))
        assert half == pytest.approx((high - low) / 2, rel=0.05)
        assert float(cell["text"]) == pytest.approx(values.mean(), abs=half / 10)
    means = [cells[column]["value"] for cells in table["rows"]]
    assert [cells[column]["best"] for cells in table["rows"]] == [mean == min(means) for mean in means]
    fids = [cells[titles.index("FID ↓")]["beside"] for cells in table["rows"]]
    assert fids == ["(n=12)"] * 3
    assert [cells[titles.index("n")]["value"] for cells in table["rows"]] == [12] * 3


def test_the_projects_own_metric_is_explained_where_it_was_scored(run):
    folder, results = run
    own = "Layout-LPIPS is this project's own metric"
    assert sum(note.startswith(own) for note in table_sections(folder, results)[0]["notes"]) == 1
    without = replace(results, scores=results.scores[results.scores["metric"] != "layout_lpips"])
    assert "Layout-LPIPS" not in str(table_sections(folder, without)[0])


def test_daggers_and_comparisons_come_from_the_file(run):
    folder, results = run
    main, by_prompt, compared = table_sections(folder, results)
    marked = [[cell["text"] for cell in row if "†" in cell["beside"]] for row in main["tables"][0]["rows"]]
    assert [len(cells) for cells in marked] == [0, 1, 0]
    assert [table["name"] for table in by_prompt["tables"]] == list(PROMPTS)
    lines = [[f"{cell['text']} {cell['beside']}".strip() for cell in row] for row in compared["tables"][0]["rows"]]
    assert lines == [
        ["MultiDiffusion", "SyncDiffusion", "Intra-LPIPS\xa0↓", "0.060 ± 0.020", "< 0.001", "< 0.001", "8 %", "12"],
        ["Blended latent diffusion", "SyncDiffusion", "KID\xa0↓", "0.030 ± 0.040", "–", "–", "–", "3"],
    ]


def test_a_miniature_says_so_and_stable_diffusion_does_not(run, tmp_path):
    folder, results = run
    assert "not Stable Diffusion" in content_of(folder / "report" / "index.html")["warning"]
    study = replace(results.study, model={**results.study.model, "embedded": False})
    assert content_of(write_page(tmp_path, replace(results, study=study)))["warning"] == ""


def test_picture_names_are_apart_for_apart_pictures(tmp_path):
    names = []
    for seed in (1, 2, 1):
        picture(seed, 8, 8).save(tmp_path / "a.png")
        names.append(write_image(tmp_path, (tmp_path / "a.png").read_bytes()))
    assert names[0] == names[2] != names[1]


LARGE = (2**53 + 1, 2**53, 2**62, 9)  # beyond 2**53 JavaScript's numbers skip odd ones


def test_seeds_are_text_in_the_order_of_numbers(tmp_path):
    results = with_seeds(LARGE)
    write_results(tmp_path, results)
    content = content_of(write_page(tmp_path, read_results(tmp_path)))
    ordered = [str(seed) for seed in sorted(LARGE)]
    assert content["seeds"] == ordered
    assert [row["seed"] for row in content["rows"]] == ordered * 2


def test_a_single_picture_has_no_statistics_and_nothing_of_others_beside_it(tmp_path):
    made = synthetic_results("experiment=panorama", "method=multidiffusion", "seeds.first=9007199254740993")
    of_panoramas = ~made.scores["metric"].isin(["fid", "kid"])  # a single picture is no set
    results = replace(made, scores=made.scores[of_panoramas], replicates=made.replicates[:0])
    write_results(tmp_path, results)
    content = content_of(write_page(tmp_path, results))
    facts = dict(content["facts"])
    assert facts["prompt"] == results.study.prompts[0] and facts["seed"] == "9007199254740993"
    assert not {"prompts", "seeds", "panoramas per method", "reference"} & facts.keys()
    (section,) = content["sections"]
    (table,) = section["tables"]
    assert "n" not in [column["title"] for column in table["columns"]]
    cells = [cell for row in table["rows"] for cell in row]
    assert not any(cell["marks"] or cell["published"] or cell["beside"] or cell["best"] for cell in cells)
    assert not [note for note in section["notes"] if re.search("±|Bold|†|published|mean per", note)]
    printed = write_tables(tmp_path, results)
    for text in (printed, (tmp_path / "table.md").read_text()):
        assert "seed 9007199254740993." in text
        assert not re.search(r"±|Bold|†|[Pp]ublished|mean per|\[a|seeds? each|reference images", text)


def test_rings_say_so_and_bring_what_turns_them(tmp_path):
    results = ring_run(tmp_path)
    page = write_page(tmp_path, results)
    content, report = content_of(page), page.parent
    closed = [method["label"] for method in content["methods"] if method["closed"]]
    assert len(closed) == 11 and "open" not in closed
    told = dict(content["facts"])["closed to a ring"]
    assert "SyncDiffusion" in told and "open" not in told and told.endswith("the right edge goes on at the left")
    for name in VIEWER:
        assert (report / name).read_bytes() == (ASSETS / "vendor" / name).read_bytes()
    assert "Permission is hereby granted, free of charge" in (report / "pannellum/LICENSE.txt").read_text()
    (picture,) = (report / "images").glob("*.webp")
    text = picture.with_suffix(".js").read_text()
    name, data = re.fullmatch(r'"use strict";\nrings\["(.*)"\] = "data:image/webp;base64,(.*)";\n', text).groups()
    assert report / name == picture and base64.b64decode(data) == picture.read_bytes()
    write_tables(tmp_path, results)
    assert "Closed to rings of 360 degrees" in (tmp_path / "table.md").read_text()
