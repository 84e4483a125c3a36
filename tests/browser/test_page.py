"""The report page in a browser: what one can see, point at, choose, search and sort, and what the page never does."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from packed_esm.report import explorer, figures, neighbours, points
from packed_esm.report.colours import Colouring
from report_pages import Page, clusters, decoded, sequences, write_page

AXE = Path(__file__).parent / "axe-core" / "axe.min.js"  # https://github.com/dequelabs/axe-core
SCRIPT = "<script>window.harm=1;alert(1)</script>"
MARGIN = 26  # pixels of the map around the points, as in page.js
COUNT = 120
THEMES = pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    """The page of a run of 120 proteins with metadata, and of one rejected record with a harmful name."""
    folder = tmp_path_factory.mktemp("page")
    rows = "".join(f"p{i}\tt{i % 3}\t{i / 8}\n" for i in range(COUNT))
    (folder / "meta.tsv").write_text("id\tplace\tmass\n" + rows)
    fasta = sequences(COUNT) + "".join(f">bad{i}{SCRIPT}\nM1\n" for i in range(12))
    write_page(folder, fasta, color_by="place", metadata=folder / "meta.tsv")
    return folder / "report.html"


@pytest.fixture
def tab(browser, page):
    opened = browser.open(page)
    yield opened
    opened.close()


def data_of(page):
    return Page(page.read_text()).data


def map_on_screen(tab):
    """Bring the map to the middle of the screen; return its left, top, width and height."""
    tab.run("document.querySelector('#canvas').scrollIntoView({block: 'center'})")
    tab.frame()
    return tab.run("(b => [b.x, b.y, b.width, b.height])(document.querySelector('#canvas').getBoundingClientRect())")


def place_on_map(tab, data, protein, zoom=1.0, view=0):
    """Return where on the screen a protein is, in pixels, as long as the map was not moved."""
    left, top, width, height = map_on_screen(tab)
    x, y = (decoded(axis["places"])[protein] / explorer.STEPS for axis in data["views"][view]["axes"])
    x, y = MARGIN + (width - 2 * MARGIN) * x, height - MARGIN - (height - 2 * MARGIN) * y
    return left + width / 2 + zoom * (x - width / 2), top + height / 2 + zoom * (y - height / 2)


def alone(data, view=0):
    """Return the protein that is farthest from its nearest point on the map."""
    places = np.stack([decoded(axis["places"]).astype(float) for axis in data["views"][view]["axes"]], axis=1)
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1) + np.diag(np.full(len(places), np.inf))
    return int(distance.min(axis=1).argmax())


def names(tab):
    return tab.run("[...document.querySelectorAll('#list .name')].map(e => e.textContent)")


def pixels(tab):
    """Return the colours of the map, as {#rrggbb}."""
    script = (
        "(c => [...new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer))])"
    )
    found = tab.run(f"{script}(document.querySelector('#canvas'))")
    return {f"#{value & 255:02x}{value >> 8 & 255:02x}{value >> 16 & 255:02x}" for value in found}


@THEMES
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_has_no_serious_fault_for_axe_and_fits_the_screen(browser, page, width, dark):
    tab = browser.open(page, width, dark=dark)
    tab.run("window.scrollTo(0, document.querySelector('#list').offsetTop)")
    tab.press("#list .name")
    tab.run("document.querySelector('#pictures').open = true")
    tab.run(AXE.read_text() + "; 0")
    found = tab.run("axe.run().then(result => result.violations)")
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
    assert tab.run("document.documentElement.scrollWidth") <= width
    assert tab.complaints() == []
    tab.close()


def test_the_page_asks_for_nothing_but_itself(tab, page):
    tab.press("#list .name")
    assert tab.requests()[0] == page.as_uri()
    assert all(address.startswith("data:image/png") for address in tab.requests()[1:])


def test_only_the_script_of_the_page_runs(tab):
    harm = "window.harm = 1"
    tab.run(f"document.body.append(Object.assign(document.createElement('script'), {{textContent: '{harm}'}})); 0")
    tab.run(f"document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"{harm}\">'); 0")
    tab.frame()
    assert tab.run("window.harm") is None
    assert any("Content Security Policy" in said for said in tab.complaints())
    refused = tab.call("Runtime.evaluate", expression="new Function('return 1')()", allowUnsafeEvalBlockedByCSP=False)
    assert "unsafe-eval" in refused["exceptionDetails"]["exception"]["description"]


def test_harmful_names_are_text_wherever_they_are_shown(browser, tmp_path):
    fasta = "".join(f">p{i}{SCRIPT} {SCRIPT}\nM{'K' * i}\n" for i in range(1, 6))
    (tmp_path / "meta.tsv").write_text(f"id\t{SCRIPT}\n" + "".join(f"p{i}{SCRIPT}\t{i}{SCRIPT}\n" for i in range(1, 6)))
    write_page(tmp_path, fasta, color_by=SCRIPT, metadata=tmp_path / "meta.tsv")
    tab = browser.open(tmp_path / "report.html")
    tab.press("#list .name")
    tab.type("#search", "<script>window")
    data = data_of(tmp_path / "report.html")
    tab.mouse("mouseMoved", *place_on_map(tab, data, 2))
    tab.frame()
    assert f"p3{SCRIPT}" in tab.text("#tip")
    assert tab.text("#details").count(SCRIPT) >= 8 and SCRIPT in tab.text("#key") and SCRIPT in tab.text("#list")
    assert tab.text("#found") == "5 proteins"
    assert tab.run("window.harm") is None and tab.run("document.scripts.length") == 2
    assert tab.complaints() == []
    tab.close()


def test_pointing_at_a_protein_shows_its_name_and_clicking_shows_all_about_it(tab, page):
    data = data_of(page)
    chosen = alone(data)
    x, y = place_on_map(tab, data, chosen)
    tab.mouse("mouseMoved", x, y)
    tab.frame()
    length = 2 + 2 * (chosen // 10)
    assert tab.text("#tip").splitlines() == [f"p{chosen}", f"{length} residues, s", f"place: t{chosen % 3}"]
    tab.click(x, y)
    said = tab.text("#details")
    for fact in (f"p{chosen}\n", f"length\n{length} residues", "sample\ns", f"place\nt{chosen % 3}"):
        assert fact in said, (fact, said)
    assert f"mass\n{chosen / 8:g}" in said
    matrix = clusters(COUNT).astype(np.float64)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    cosines = matrix @ matrix[chosen]
    best = [i for i in np.argsort(-cosines) if i != chosen][:5]
    lines = tab.run("[...document.querySelectorAll('#nearest tbody tr')].map(r => [...r.cells].map(c => c.innerText))")
    assert lines == [[f"p{i}", f"t{i % 3}", f"{cosines[i]:.4f}"] for i in best]
    tab.press("#nearest .name")
    assert tab.text("#details").startswith(f"p{best[0]}\n")


def test_zooming_and_moving_keep_points_and_proteins_together(tab, page):
    data = data_of(page)
    tab.type("#search", "")
    chosen = alone(data)
    tab.choose("#view", 1)
    map_on_screen(tab)
    tab.press("#in")
    x, y = place_on_map(tab, data, chosen, zoom=1.5, view=1)
    left, top, width, height = map_on_screen(tab)
    across, down = left + width / 2 - x, top + height / 2 - y  # drag the protein to the middle
    tab.mouse("mousePressed", left + 40, top + 40, button="left", clickCount=1)
    for share in (0.3, 1):
        tab.mouse("mouseMoved", left + 40 + share * across, top + 40 + share * down, button="left", buttons=1)
    tab.mouse("mouseReleased", left + 40 + across, top + 40 + down, button="left", clickCount=1)
    for _ in range(8):  # in the middle it stays, and others leave
        tab.press("#in")
    left, top, width, height = map_on_screen(tab)
    tab.click(left + width / 2, top + height / 2)
    assert tab.text("#details").startswith(f"p{chosen}\n")
    tab.press("#all")
    tab.click(*place_on_map(tab, data, (chosen + 1) % COUNT, view=1))
    assert tab.complaints() == []


def test_the_wheel_scrolls_the_page_until_the_map_was_clicked(tab, page):
    before = tab.run("document.querySelector('#canvas').toDataURL()")
    x, y = place_on_map(tab, data_of(page), 0)
    tab.mouse("mouseMoved", 2, 2)
    tab.mouse("mouseWheel", x, y, deltaX=0, deltaY=-1)
    tab.frame()
    assert tab.run("document.querySelector('#canvas').toDataURL()") == before
    tab.run("document.querySelector('#canvas').focus()")
    tab.mouse("mouseWheel", x, y, deltaX=0, deltaY=-300)
    tab.frame()
    assert tab.run("document.querySelector('#canvas').toDataURL()") != before


def test_the_search_finds_ids_and_metadata_and_every_word_must_be_there(tab):
    assert tab.text("#found") == f"{COUNT} proteins"
    tab.type("#search", "P11")
    assert (
        names(tab) == ["p11", *(f"p{i}" for i in range(110, 120))] and tab.text("#found") == f"11 of {COUNT} proteins"
    )
    tab.type("#search", "t2 p11")
    assert names(tab) == [f"p{i}" for i in (11, *range(110, 120)) if i % 3 == 2]
    assert pixels(tab) >= {figures.GREY, figures.PALETTE[2]} and figures.PALETTE[0] not in pixels(tab)
    tab.type("#search", "nothing like this")
    assert names(tab) == [] and tab.text("#found") == f"0 of {COUNT} proteins"


def test_an_accession_is_shown_and_found_where_it_is_not_the_id(browser, tmp_path):
    ids = [f"sp|P1234{i}|NAME{i}_X" for i in range(4)]
    write_page(tmp_path, "".join(f">{name} A protein\nM{'K' * i}\n" for i, name in enumerate(ids)))
    tab = browser.open(tmp_path / "report.html")
    tab.type("#search", "p12342")
    assert names(tab) == [ids[2]]
    tab.press("#list .name")
    assert "accession\nP12342\n" in tab.text("#details")
    assert tab.run("[...document.querySelectorAll('#colour option')].map(e => e.text)") == ["length", "sample"]
    assert tab.complaints() == []
    tab.close()


def test_a_column_of_the_sheet_called_description_is_coloured_by(browser, tmp_path):
    (tmp_path / "meta.tsv").write_text("id\tdescription\tplace\n" + "".join(f"p{i}\td{i}\ta{i}\n" for i in range(5)))
    write_page(tmp_path, sequences(5), color_by="place", metadata=tmp_path / "meta.tsv")
    tab = browser.open(tmp_path / "report.html")
    chosen = "document.querySelector('#colour').selectedOptions[0].text"
    assert tab.run(chosen) == "place" and "a0 (1)" in tab.text("#key")
    tab.choose(
        "#colour", tab.run("[...document.querySelector('#colour').options].findIndex(o => o.text == 'description')")
    )
    assert tab.run(chosen) == "description" and "d0 (1)" in tab.text("#key")
    assert tab.complaints() == []
    tab.close()


def test_one_can_go_on_with_the_keyboard_after_choosing_a_protein(tab):
    focused = "(e => e.id || e.textContent)(document.activeElement)"
    tab.run("document.querySelectorAll('#list .name')[3].focus()")
    tab.run("document.activeElement.click()")
    assert tab.text("#details").startswith("p3\n") and tab.run(focused) == "p3"
    marked = "[...document.querySelectorAll('#list .chosen')].map(row => row.cells[0].textContent)"
    assert tab.run(marked) == ["p3"]
    for place in ("#nearest .name", "#details .clear"):
        tab.run(f"document.querySelector('{place}').focus()")
        tab.run("document.activeElement.click()")
        assert tab.run(focused) == "details"
    assert tab.run(marked) == []


def test_numbers_are_shown_as_they_are_and_found_as_they_are_shown(browser, tmp_path):
    given = ["123456789", "0.000001", "9606", "0.1", "1234567.5", "-7.25", "0.33333333333", "2.5e-9"]
    shown = ["123456789", "0.000001", "9606", "0.1", "1.23457e+6", "-7.25", "0.333333", "2.5e-9"]
    (tmp_path / "meta.tsv").write_text("id\tvalue\n" + "".join(f"p{i}\t{x}\n" for i, x in enumerate(given)))
    write_page(tmp_path, sequences(len(given)), metadata=tmp_path / "meta.tsv")
    tab = browser.open(tmp_path / "report.html")
    cells = "[...document.querySelectorAll('#list tbody tr')].map(r => r.cells[3].textContent)"
    assert tab.run(cells) == shown
    for i, text in enumerate(shown):
        tab.type("#search", text)
        assert f"p{i}" in names(tab) and set(tab.run(cells)) <= {x for x in shown if text in x}
    assert tab.complaints() == []
    tab.close()


def test_a_group_can_be_shown_alone(tab):
    tab.press("#key button:nth-child(2)")
    assert tab.text("#found") == f"40 of {COUNT} proteins" and set(names(tab)) <= {f"p{i}" for i in range(1, COUNT, 3)}
    assert pixels(tab) >= {figures.GREY, figures.PALETTE[1]} and figures.PALETTE[0] not in pixels(tab)
    tab.press("#key button:nth-child(2)")
    assert tab.text("#found") == f"{COUNT} proteins"


def test_the_list_sorts_by_every_column_and_shows_more(tab):
    assert len(names(tab)) == 20
    tab.press("#more")
    assert len(names(tab)) == 40
    tab.press("#list th:nth-child(5) button")  # mass
    assert names(tab)[:3] == ["p0", "p1", "p2"]
    tab.press("#list th:nth-child(5) button")
    assert names(tab)[:3] == ["p119", "p118", "p117"]
    assert tab.run("document.querySelector('#list th:nth-child(5)').ariaSort") == "descending"
    tab.press("#list th:nth-child(1) button")
    assert names(tab)[:12] == [f"p{i}" for i in range(12)]  # numbers in names count as numbers


def test_a_table_of_the_page_sorts_and_searches(tab):
    table = "[...document.querySelectorAll('#rejected ~ .wide table')][0]"
    cells = f"[...{table}.tBodies[0].rows].filter(r => !r.hidden).map(r => r.cells[2].textContent)"
    lines = tab.run(cells)
    assert len(lines) == 12
    tab.press("#rejected ~ .wide th:nth-child(3) button")
    assert tab.run(cells) == lines
    tab.press("#rejected ~ .wide th:nth-child(3) button")
    assert tab.run(cells) == lines[::-1]
    tab.type("#rejected ~ label input", "bad11")
    assert tab.run(cells) == [lines[-1]]


def test_the_map_follows_the_theme_and_the_colouring(browser, page):
    for dark, theme, ground in ((False, "light", "#ffffff"), (True, "dark", "#121212")):
        tab = browser.open(page, dark=dark)
        body = tab.run("getComputedStyle(document.body).backgroundColor")
        assert body == f"rgb({', '.join(str(int(ground[i : i + 2], 16)) for i in (1, 3, 5))})"
        assert {ground, *figures.PALETTE[:3]} <= pixels(tab)
        tab.choose("#colour", 3)
        scale = figures.scales()[theme]
        assert {ground, scale[0], scale[-1]} <= pixels(tab) and figures.PALETTE[1] not in pixels(tab)
        assert tab.text("#key").split() == ["mass:", "0", "14.875"]
        tab.close()


def test_without_script_the_pictures_and_tables_are_there(browser, page):
    tab = browser.open(page, script=False)
    tab.call("Emulation.setScriptExecutionDisabled", value=False)
    assert not tab.run("document.querySelector('#explorer').checkVisibility()")
    seen = "i => i.checkVisibility() && i.naturalWidth > 100"
    assert tab.run(f"[...document.querySelectorAll('figure img')].map({seen})") == [True] * 6
    tab.close()


def test_letters_in_pictures_are_legible_on_a_small_screen(browser, page):
    tab = browser.open(page, 400)
    tab.run("document.querySelector('#pictures').open = true")
    widths = tab.run("[...document.querySelectorAll('figure img')].map(i => i.getBoundingClientRect().width)")
    smallest = 10 * 0.833  # points: matplotlib's `small`
    assert len(widths) == 6 and min(widths) * smallest / (figures.WIDTH * 72) > 8.5
    tab.close()


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_the_page_of_few_proteins_works(browser, tmp_path, count):
    write_page(tmp_path, sequences(count))
    tab = browser.open(tmp_path / "report.html")
    assert names(tab) == [f"p{i}" for i in range(count)]
    if count:
        tab.press("#list .name")
        assert tab.run("document.querySelectorAll('#nearest tbody tr').length") == count - 1
    assert tab.complaints() == []
    tab.close()


def test_a_hundred_thousand_points_are_drawn_within_three_seconds(browser, page, tmp_path):
    count, rng = points.MAX_POINTS, np.random.default_rng(0)
    views = [figures.View(name, rng.normal(size=(count, 2)), "x", "y") for name in ("UMAP", "a", "b")]
    drawn = points.Points("mean_6", np.zeros((count, 1), np.float32), np.arange(count), count, views[1:], views[0])
    ids = [f"sp|A0A{i:06}|PROTEIN_{i}" for i in range(count)]
    proteins = pd.DataFrame({"id": ids, "sample": "s", "length": rng.integers(50, 900, count)})
    proteins["description"] = [f"{name} A protein of the family {i % 997}" for i, name in enumerate(ids)]
    found = neighbours.Neighbours(rng.integers(0, count, (count, 5)), rng.random((count, 5), np.float32), False)
    colouring = Colouring("family", np.array([f"f{i % 30}" for i in range(count)], dtype=object))
    data = explorer.as_json(explorer.explorer_data(drawn, found, proteins, colouring, None))
    head, tail = re.split(r'(?<=id="data">).*?(?=</script>)', page.read_text(), flags=re.DOTALL)
    (tmp_path / "many.html").write_text(head + data + tail)
    tab = browser.open(tmp_path / "many.html")
    tab.frame()
    seconds = tab.run("performance.now()") / 1000  # since the page was asked for
    assert set(figures.PALETTE) <= pixels(tab)
    assert seconds < 3, seconds
    tab.type("#search", "family 96")
    assert re.fullmatch(r"\d[\d,]* of 100,000 proteins", tab.text("#found")) and tab.complaints() == []
    tab.close()
