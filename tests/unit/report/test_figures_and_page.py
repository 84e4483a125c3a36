"""Projections, colours, figures and the page: what they show, and what they make of few proteins and of odd names."""

import base64
import hashlib
import logging
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from packed_esm.outputs.bounds import tolerance as bounds
from packed_esm.outputs.table import SEQUENCE_MEASURES
from packed_esm.report import colours, explorer, figures, neighbours, points, projection
from packed_esm.report.colours import Colouring, choose_colouring
from packed_esm.report.page import FIGURES
from packed_esm.sequences.metadata import match_metadata
from report_pages import Page, clusters, decoded, job, sequences, write_page

SCRIPT = "<script>alert(1)</script>"
COMPARED = {measure.name: measure.title for measure in SEQUENCE_MEASURES}
CONTACTS = ("contacts_abs_per_residue", "contacts_precision", "contacts_correlation")


def test_principal_components_are_those_of_the_singular_value_decomposition():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(50, 6)) * [5, 3, 1, 1, 1, 1] + 7
    scores, share = projection.principal_components(matrix.astype(np.float32), 2)
    left, values, _ = np.linalg.svd(matrix - matrix.mean(0))
    assert np.allclose(np.abs(scores), np.abs(left[:, :2] * values[:2]), atol=1e-4)
    assert np.allclose(share, values[:2] ** 2 / (values**2).sum(), atol=1e-5)


@pytest.mark.parametrize("most", [120, pytest.param(119, marks=pytest.mark.slow)], ids=["exact", "searched"])
def test_umap_keeps_clusters_apart_and_repeats_bit_for_bit(monkeypatch, most):
    monkeypatch.setattr(projection, "MAX_EXACT", most)
    count = 3 * 40
    matrix = clusters(count)
    scores, _ = projection.principal_components(matrix, 50)
    places = projection.umap_points(matrix, scores)
    assert places.shape == (count, 2) and np.isfinite(places).all()
    assert places.tobytes() == projection.umap_points(matrix, scores).tobytes()
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1) + np.diag(np.full(count, np.inf))
    assert (distance.argmin(axis=1) % 3 == np.arange(count) % 3).all()


@pytest.mark.parametrize("distinct", [1, projection.MIN_POINTS - 1, projection.MIN_POINTS])
def test_umap_of_few_or_equal_embeddings(distinct):
    matrix = np.repeat(clusters(distinct), 3, axis=0)
    places = projection.umap_points(matrix, projection.principal_components(matrix, 50)[0])
    if distinct < projection.MIN_POINTS:
        assert places is None
    else:
        assert np.isfinite(places).all() and len(np.unique(places, axis=0)) == distinct
        assert (places[0::3] == places[2::3]).all()


def test_a_page_of_few_proteins_imports_neither_umap_nor_scikit_learn(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from report_pages import sequences, write_page\n"
        "write_page(Path(sys.argv[2]), sequences(int(sys.argv[3])))\n"
        "print([name for name in ('umap', 'numba', 'sklearn') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "tests"), str(tmp_path), str(projection.MIN_POINTS - 1)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_values_of_a_key_end_where_the_next_key_begins():
    descriptions = ["sp|P1 Globin OS=Homo sapiens OX=9606 GN=HBB", "x family=fn3", "y"]
    assert colours.values_of_key(descriptions, "OS") == ["Homo sapiens", "", ""]
    assert colours.values_of_key(descriptions, "family") == ["", "fn3", ""]


def proteins(**columns):
    defaults = {"sample": ["a", "a", "b"], "id": ["p", "q", "p"], "description": ["p", "q family=fn3", "p"]}
    return pd.DataFrame(defaults | columns)


def test_colours_come_from_the_sheet_else_from_descriptions_else_from_samples(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    sheet = tmp_path / "meta.tsv"
    sheet.write_text("# mine\nid\tplace\tmass\tNA\nq\tmembrane\t1e3\t007\np\t\tNA\t7\nx\t-\t-2\t\n")
    metadata = match_metadata(proteins(), sheet)
    place = choose_colouring(proteins(), "place", metadata)
    assert list(place.values) == ["no place", "membrane", "no place"] and not place.numeric
    assert f"metadata: 3 of 3 proteins matched by `id` of {sheet}" in caplog.text
    assert "1 of its 3 rows belong to none of them (first: x)" in caplog.text
    mass = choose_colouring(proteins(), "mass", metadata)
    assert mass.numeric and mass.values[1] == 1000 and np.isnan(mass.values[[0, 2]]).all()
    assert list(choose_colouring(proteins(), "family", metadata).values) == ["no family", "fn3", "no family"]
    assert "coloured by sample" not in caplog.text
    assert list(choose_colouring(proteins(), "nothing", metadata).values) == ["a", "a", "b"]
    assert "no record has 'nothing' as a column of the metadata or as a key=value" in caplog.text
    assert list(choose_colouring(proteins(), "", None).values) == ["a", "a", "b"]


def test_a_sheet_with_samples_tells_equal_ids_apart(tmp_path):
    (tmp_path / "meta.tsv").write_text("sample\tid\tplace\nb\tp\tout\na\tp\tin\n")
    found = choose_colouring(proteins(), "place", match_metadata(proteins(), tmp_path / "meta.tsv"))
    assert list(found.values) == ["in", "no place", "out"]


def test_columns_with_a_value_that_is_no_finite_number_are_text(tmp_path):
    (tmp_path / "meta.tsv").write_text("id\tx\ty\np\tinf\t\nq\t1\t\n")
    for column in "xy":
        assert not choose_colouring(proteins(), column, match_metadata(proteins(), tmp_path / "meta.tsv")).numeric


def test_the_page_says_how_many_proteins_the_metadata_has(tmp_path, caplog):
    (tmp_path / "meta.tsv").write_text("id\tx\np0\t1\np1\t2\n<i>\t2\n")
    page = Page(write_page(tmp_path, sequences(4), metadata=tmp_path / "meta.tsv"))
    said = (
        f"2 of 4 proteins matched by `id` of {tmp_path}/meta.tsv; 1 of its 3 rows belong to none of them (first: <i>)"
    )
    assert f"Metadata: {said}." in page.text and f"metadata: {said}" in caplog.text and "i" not in page.tags


def contrast(one, other):
    """Return the contrast of two colours, #rrggbb, as WCAG 2.2 defines it."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def page_colours():
    """Return the variables of the page's style on a light and on a dark page."""
    style = (ROOT / "workflow/packed_esm/report/page.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w+)", part)) for part in re.findall(r":root \{(.*?)\}", style, re.S)
    )
    return {"light": light, "dark": dark}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_points_lines_and_letters_can_be_seen_on_both_pages(theme):
    colours = page_colours()[theme]
    page = colours["page"]
    for colour in (*figures.PALETTE, figures.GREY, *figures.scales()[theme], colours["edge"], colours["good-edge"]):
        assert contrast(colour, page) >= 3, colour
    for ground in (page, colours["card"], colours["chosen"], colours["good"]):
        assert min(contrast(colours[name], ground) for name in ("text", "soft", "link")) >= 4.5, ground


def test_the_colours_of_the_pictures_can_be_seen_on_the_dark_page_too():
    # What the page's filter makes of a colour: https://drafts.fxtf.org/filter-effects/#feColorMatrixElement
    turned = np.array([[-0.574, 1.43, 0.144], [0.426, 0.43, 0.144], [0.426, 1.43, -0.856]])
    for colour in (*figures.PALETTE, figures.GREY, *figures.scales()["light"], "#000000"):
        parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        seen = np.clip(turned @ (0.93 - 0.86 * parts), 0, 1)
        assert contrast("#" + "".join(f"{round(255 * part):02x}" for part in seen), page_colours()["dark"]["page"]) >= 3


def test_small_groups_become_other():
    groups = [f"g{i}" for i in range(30) for _ in range(30 - i)]
    labels = figures.with_other(groups)
    assert set(labels) == {f"g{i}" for i in range(figures.MAX_GROUPS)} | {"other"}
    assert list(figures.with_other(["a", "b"])) == ["a", "b"]
    entries = figures.legend_entries(Colouring("x", np.array(groups, dtype=object)))
    assert [name for name, _, _ in entries] == [f"g{i}" for i in range(figures.MAX_GROUPS)] + ["other"]
    assert len({colour for _, colour, _ in entries}) == 10 and sum(count for *_, count in entries) == len(groups)


def test_the_points_differ_by_colouring_and_repeat(tmp_path):
    places, samples = clusters(30)[:, :2], ["s", "t"] * 15
    numbers = np.where(np.arange(30) % 4 == 0, np.nan, np.arange(30.0))
    pictures = {}
    for name, values in (
        ("numbers", numbers),
        ("text", np.array(["$x^2$", "_a", "蛋" * 50] * 10, dtype=object)),
        ("one", np.array(["a"] * 30, dtype=object)),
    ):
        for again in range(2):
            path = tmp_path / f"{name}{again}.png"
            figures.plot_points(
                path, [figures.View("v", places, "x", "y")], Colouring("$m$", values), samples, "a $ b $"
            )
        assert path.read_bytes() == (tmp_path / f"{name}0.png").read_bytes()
        pictures[name] = path.read_bytes()
    assert len(set(pictures.values())) == 3


@pytest.mark.parametrize("count", [0, 1, 3, 60])
def test_every_other_figure_is_drawn_for_any_number_of_proteins_and_chunks(tmp_path, count):
    rng = np.random.default_rng(0)
    figures.plot_lengths(tmp_path / "l.png", {"s": rng.integers(1, 500, count), "t": np.zeros(0)})
    columns = ["sample", "id", "length", "layer", "relative_l2", "min_residue_cosine"]
    layers = [["s", f"p{i}", i + 1, layer, 0.0, 1.0] for i in range(count) for layer in (3, 6)]
    table = pd.DataFrame(layers, columns=columns)
    figures.plot_validation(tmp_path / "v.png", table, {"relative_l2": 1e-6, "residue_cosine": 0.999})
    tolerance = bounds("fp32")
    figures.plot_validation(tmp_path / "contacts.png", table.assign(**dict.fromkeys(COMPARED, np.nan)), tolerance)
    stats = {str(i): job(fill=None if i else 0.5) for i in range(count)}
    figures.plot_throughput(tmp_path / "t.png", stats)
    figures.plot_stages(tmp_path / "s.png", stats)
    for path in tmp_path.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 3000
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 40])
def test_a_page_comes_out_for_any_number_of_proteins(tmp_path, count):
    page = Page(write_page(tmp_path, sequences(count) + ">bad\nM1\n"))
    pictures = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert len(set(pictures)) == len(FIGURES)
    assert f"{count:,}" in page.text and "9.8.7" in page.text and "1.2.3" in page.text
    assert ("Colours by" in page.text) == (count >= points.MIN_PCA_POINTS)


def test_the_page_is_one_file_that_loads_nothing_and_says_what_each_picture_shows(tmp_path):
    text = write_page(tmp_path, sequences(12))
    page = Page(text)
    sources = [v for _, name, v in page.attributes if name in ("src", "href", "xlink:href", "srcset", "action")]
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in sources)
    assert not re.search(r"https?:|url\(|@import", text)
    assert not re.search(
        r"\beval\b|\bFunction\b|HTML\b|write\(|Worker", "".join(page.code["script"].split("never as HTML"))
    )
    targets = {value for _, name, value in page.attributes if name == "id"}
    assert {source[1:] for source in sources if source.startswith("#")} <= targets
    for name in FIGURES:
        caption = " ".join((ROOT / "workflow/report" / f"{name}.rst").read_text().split())
        assert caption in page.text and caption.count(".") - len(re.findall(r"\d\.\d", caption)) == 1
        assert any(tag == "img" and key == "alt" and caption in value for tag, key, value in page.attributes)


def test_what_is_compared_of_logits_and_contacts_is_on_the_page(tmp_path):
    plain = Page(write_page(tmp_path, sequences(6)))
    picture = (tmp_path / "figures/validation.png").read_bytes()
    assert not any(what in plain.text for what in COMPARED.values())
    found = dict.fromkeys(COMPARED, 3e-7) | {"contacts_precision": 0.99999, "contacts_correlation": 0.9999999}
    page = Page(write_page(tmp_path, sequences(6), found))
    assert all(what in page.text for what in COMPARED.values())
    assert "3.0e-07" in page.text and "0.99999000" in page.text
    assert (tmp_path / "figures/validation.png").read_bytes() != picture
    Page(write_page(tmp_path, sequences(6), found | dict.fromkeys(CONTACTS)))  # no map was compared


def test_harmful_and_odd_names_are_shown_and_do_nothing(tmp_path):
    odd = [SCRIPT, "$\\frac{1}{0}$", "蛋白质-タンパク質", "x" * 300, '"><img/src=x/onerror=alert(1)>', "_a", "{{7*7}}"]
    fasta = "".join(f">{name}\nM{'K' * i}\n" for i, name in enumerate(odd, 1)) + f">bad{SCRIPT}\nM1\n"
    (tmp_path / "meta.tsv").write_text("id\tplace\n" + "".join(f"{name}\t{name}\n" for name in odd))
    page = Page(write_page(tmp_path, fasta, color_by="place", metadata=tmp_path / "meta.tsv"))
    assert not {"iframe", "object"} & set(page.tags) and page.tags.count("script") == 2
    assert page.data["ids"] == odd
    assert page.tags.count("img") == len(FIGURES)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert all(name in page.text for name in odd) and f"bad{SCRIPT}" in page.text


def test_the_metadata_colours_the_plots_of_the_page(tmp_path):
    (tmp_path / "meta.tsv").write_text("id\ttext\tnumber\n" + "".join(f"p{i}\tt{i % 2}\t{i}\n" for i in range(120)))
    pictures, texts = [], []
    for column in ("text", "number", ""):
        texts.append(write_page(tmp_path, sequences(120), color_by=column, metadata=tmp_path / "meta.tsv"))
        pictures += [hashlib.sha256((tmp_path / f"figures/{n}.png").read_bytes()).digest() for n in ("pca", "umap")]
    assert len(set(pictures)) == 6
    assert "t0 (60)" in texts[0] and "Colours" not in texts[1] and "s (120)" in texts[2]


def test_numbers_of_the_metadata_reach_the_page_as_they_are(tmp_path):
    numbers = ["123456789", "1e-6", "9606", "0.1", "1e300", "-7.25", "9007199254740991"]
    rows = "".join(f"p{i}\t{numbers[i % 7]}\n" for i in range(120))
    (tmp_path / "meta.tsv").write_text("id\tvalue\n" + rows)
    data = Page(write_page(tmp_path, sequences(120), metadata=tmp_path / "meta.tsv")).data
    values = next(decoded(column["numbers"]) for column in data["columns"] if column["name"] == "value")
    assert values.dtype == np.float64 and list(values) == [float(numbers[i % 7]) for i in range(120)]


def test_the_rest_of_a_header_is_whole_where_the_id_got_a_suffix():
    descriptions = ["a protein kinase", "a rotor thing", "sp|P12345|AATM_RABIT Aspartate  transaminase ", "b"]
    proteins = pd.DataFrame({"id": ["a", "a_2", "sp|P12345|AATM_RABIT", "b"], "sample": "s", "length": 3})
    proteins["description"] = descriptions
    drawn = points.Points("mean_6", np.zeros((4, 1), np.float32), np.arange(4), 4, [], None)
    found = neighbours.Neighbours(np.zeros((4, 1), np.int64), np.zeros((4, 1), np.float32), True)
    colouring = colours.choose_colouring(proteins, "")
    data = explorer.explorer_data(drawn, found, proteins, colouring, None)
    columns = {column["name"]: column for column in data["columns"]}
    shown = {
        name: [columns[name]["values"][code] for code in decoded(columns[name]["codes"])]
        for name in ("accession", "description")
    }
    assert shown["description"] == ["protein kinase", "rotor thing", "Aspartate  transaminase", ""]
    assert shown["accession"] == ["a", "a_2", "P12345", "b"] and data["colourings"] == 2


def test_the_data_of_the_page_are_those_of_the_run(tmp_path):
    count = 120
    (tmp_path / "meta.tsv").write_text("id\tplace\tmass\n" + "".join(f"p{i}\tt{i % 3}\t{i / 8}\n" for i in range(100)))
    fasta = sequences(count).replace("p7\n", "p7 a </script> of p7\n")
    data = Page(write_page(tmp_path, fasta, color_by="mass", metadata=tmp_path / "meta.tsv")).data
    assert data["ids"] == [f"p{i}" for i in range(count)]
    columns = {column["name"]: column for column in data["columns"]}
    assert list(columns) == ["length", "sample", "mass", "place", "description"]
    assert data["columns"][data["colour"]]["name"] == "mass"
    assert list(decoded(columns["length"]["numbers"])) == [2 + 2 * (i // 10) for i in range(count)]
    mass = decoded(columns["mass"]["numbers"])
    assert list(mass[:100]) == [i / 8 for i in range(100)] and np.isnan(mass[100:]).all()
    place = np.array(columns["place"]["values"])[decoded(columns["place"]["codes"])]
    assert list(place) == [f"t{i % 3}" if i < 100 else "no place" for i in range(count)]
    assert columns["place"]["values"] == ["t0", "t1", "t2", "no place"]
    titles = np.array(columns["description"]["values"])[decoded(columns["description"]["codes"])]
    assert titles[7] == "a </script> of p7" and set(np.delete(titles, 7)) == {""}
    assert [view["name"] for view in data["views"]] == [
        "UMAP",
        *(f"principal components {n}" for n in ("1 and 2", "3 and 4")),
    ]
    matrix = clusters(count)
    scores, share = projection.principal_components(matrix, 4)
    for k, axis in enumerate(axis for view in data["views"][1:] for axis in view["axes"]):
        assert axis["label"] == f"component {k + 1} ({share[k]:.0%})"
        low, high = scores[:, k].min(), scores[:, k].max()
        step = (high - low) / explorer.STEPS
        assert np.allclose(low + step * decoded(axis["places"]), scores[:, k], atol=0.51 * step, rtol=0)
    found = neighbours.nearest_by_cosine(matrix)
    assert data["neighbours"]["exact"] and data["neighbours"]["count"] == 5
    assert (decoded(data["neighbours"]["rows"]).reshape(count, 5) == found.rows).all()
    assert (decoded(data["neighbours"]["cosines"]).reshape(count, 5) == found.cosines).all()


def test_a_sheet_of_many_columns_does_not_swell_the_page(tmp_path):
    names = [f"c{i}" for i in range(40)]
    (tmp_path / "meta.tsv").write_text("\t".join(["id", *names]) + "\np0" + "\t1" * 40 + "\n")
    page = Page(write_page(tmp_path, sequences(4), color_by="c39", metadata=tmp_path / "meta.tsv"))
    shown = [column["name"] for column in page.data["columns"]]
    assert shown == ["length", "sample", "c39", *names[: colours.MAX_COLUMNS], "description"]
    assert "The page has its first 30 columns; 10 are left out." in " ".join(page.text.split())


def test_the_policy_of_the_page_allows_its_own_script_and_style_by_hash_and_nothing_else(tmp_path):
    page = Page(write_page(tmp_path, sequences(3)))
    policy = next(v for tag, name, v in page.attributes if tag == "meta" and name == "content" and "default-src" in v)
    script, style = (
        base64.b64encode(hashlib.sha256(page.code[name].encode()).digest()).decode() for name in ("script", "style")
    )
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; script-src 'sha256-{script}'; "
        "base-uri 'none'; form-action 'none'"
    )


@pytest.mark.parametrize("limit", [{"MAX_POINTS": 20}, {"MAX_VALUES": 20 * 24}])
def test_of_very_many_proteins_some_are_drawn_at_random_and_the_page_says_so(tmp_path, monkeypatch, limit):
    for name, most in limit.items():
        monkeypatch.setattr(points, name, most)
    page = Page(write_page(tmp_path, sequences(50)))
    assert "20 of 50 proteins are here, drawn at random." in page.text
    ids, lengths = page.data["ids"], decoded(page.data["columns"][0]["numbers"])
    assert len(set(ids)) == 20 and ids == sorted(ids, key=lambda name: int(name[1:]))
    assert list(lengths) == [2 + 2 * (int(name[1:]) // 10) for name in ids]
    rows = [int(name[1:]) for name in ids]
    found = neighbours.nearest_by_cosine(clusters(50)[rows])
    assert (decoded(page.data["neighbours"]["rows"]).reshape(20, 5) == found.rows).all()
