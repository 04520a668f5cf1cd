import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import pytest

from ioa_jax.organizer.curriculum import plan_curriculum
from ioa_jax.organizer.retention import ForgettingMatrix
from ioa_jax.page.document import Html, Section, element, join, render_page
from ioa_jax.page.plots import Bar, bar_chart, dependency_graph, line_chart
from ioa_jax.page.sections import (
    curriculum_section,
    diagnosis_sections,
    example_section,
    excluded_section,
    forgetting_section,
    form_section,
    gate_section,
    lesson_section,
    mastery_section,
    outcome_section,
    reject_section,
    retention_section,
    spend_section,
    training_section,
)
from tests.page import values

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def page():
    diagnosis = values.diagnosis()
    curriculum = plan_curriculum(
        diagnosis.targets.modules,
        diagnosis.graph,
        diagnosis.student_performance(),
        diagnosis.mastered(),
    )
    return render_page(
        "Diagnosis <1>",
        "of a made-up student",
        [
            outcome_section(values.RECORD),
            *diagnosis_sections(diagnosis),
            curriculum_section(curriculum),
            lesson_section(values.RECORD, {"1": (0.25, 0.5), "2": (0.75, 0.5)}),
            form_section(values.FORMS),
            excluded_section(values.RECORD["excluded"]),
            gate_section(values.gates(), pooled=True),
            mastery_section(values.gates(), ticks=("stage", "pass", "end")),
            retention_section(values.RECORD),
            forgetting_section(values.MATRIX),
            spend_section(values.SPEND),
            training_section(values.RECORD["spend"]),
            reject_section(values.REJECTS),
            example_section(values.EXAMPLES),
        ],
    )


def test_what_isnt_markup_is_escaped():
    assert (
        element("p", "<b>", element("br"), class_='a"b') == '<p class="a&quot;b">&lt;b&gt;<br></p>'
    )
    assert join(["<", Html("<b>")]) == "&lt;<b>"
    assert element("rect", stroke_width=1.5, x=None) == '<rect stroke-width="1.5"></rect>'


def test_no_text_of_a_model_becomes_markup(page):
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "1. First\n2. &lt;/pre&gt;" in page
    assert "&lt;b&gt;odd" in page
    assert "&lt;i&gt;6&lt;/i&gt;" in page
    # Two texts of an example, one that was rejected, and the conclusion's.
    assert page.count("<pre>") == 4


def test_nothing_is_loaded_from_outside(page):
    assert re.findall(r"(?:src|href)=\"(?!#|data:,\")[^\"]*\"", page) == []
    assert "url(" not in page.replace("url(#arrow)", "")
    assert "default-src 'none'" in page.replace("&#x27;", "'")


def test_every_section_is_linked_and_every_plot_named(page):
    names = re.findall(r"<section id=\"([^\"]+)\"", page)
    assert names == re.findall(r"<li><a href=\"#([^\"]+)\"", page)
    assert len(names) == len(set(names)) == 17
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    # Gaps, graph, severity, levels, two stages, spend and rejects.
    assert len(plots) == 8
    for plot in plots:
        root = ET.fromstring(plot)
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-label"] == root[0].text


def bars_of(svg):
    return [
        (float(r.attrib["x"]), float(r.attrib["width"]), r.attrib["class"])
        for r in ET.fromstring(svg).iter("rect")
    ]


def test_bars_are_as_long_as_their_values():
    chart = bar_chart(
        "t",
        [
            Bar("a", ((1.0, "main"),), "", (0.5, 1.5)),
            Bar("b", ((-0.5, "bad"),), ""),
            Bar("c", ((0.25, "main"), (0.5, "second")), ""),
        ],
    )
    (a, b, c, d) = bars_of(chart)
    zero, unit = a[0], a[1]
    assert b[0] + b[1] == pytest.approx(zero, abs=0.01)
    assert b[1] == pytest.approx(unit / 2, rel=1e-3)
    assert c == (zero, pytest.approx(unit / 4, rel=1e-3), "main")
    assert d == (
        pytest.approx(zero + unit / 4, rel=1e-3),
        pytest.approx(unit / 2, rel=1e-3),
        "second",
    )
    (whisker,) = [
        p.attrib["d"] for p in ET.fromstring(chart).iter("path") if p.attrib["class"] == "whisker"
    ]
    left, right = float(whisker[1:].split()[0]), float(re.findall(r"H([\d.]+)", whisker)[0])
    assert (left - zero) / unit == pytest.approx(0.5, abs=0.01)
    assert (right - zero) / unit == pytest.approx(1.5, abs=0.01)


def test_a_chart_of_zeros():
    (bar,) = bars_of(bar_chart("t", [Bar("a", ((0.0, "main"),), "")]))
    assert bar[1] == 0


def test_lines_skip_what_wasnt_measured():
    chart = line_chart("t", ["a", "b"], [[0.5, None, 1.0], [None, None, None]], ["0", "1", "2"])
    root = ET.fromstring(chart)
    assert len(list(root.iter("circle"))) == 2
    texts = [node.text for node in root.iter("text")]
    assert "1.00 a" in texts
    assert not any(text and text.endswith(" b") for text in texts)


def test_prerequisites_stand_left_of_what_needs_them():
    diagnosis = values.diagnosis()
    svg = dependency_graph("t", diagnosis.graph, diagnosis.targets.modules, diagnosis.deficient)
    root = ET.fromstring(svg)
    left: dict[str | None, float] = {}
    states: dict[str | None, str] = {}
    for group in root.iter("g"):
        title, rect = group[0], group[1]
        left[title.text] = float(rect.attrib["x"])
        states[title.text] = rect.attrib["class"]
    # What no edge joins isn't drawn.
    assert "number-theory/primes" not in left
    for edge in diagnosis.graph.edges:
        assert left[edge.prerequisite] + 100 < left[edge.dependent]
    kinds = [p.attrib["class"] for p in root.iter("path") if p.attrib["class"].startswith("edge")]
    assert sorted(kinds) == ["edge population"] * 3 + ["edge prior", "edge quantile"]
    for module in diagnosis.targets.modules:
        assert states[module] == "node target"
    assert states["arithmetic/addition"] == "node"
    boxes = [
        (float(r.attrib["x"]), float(r.attrib["y"]))
        for r in root.iter("rect")
        if r.attrib["class"].startswith("node")
    ]
    assert len(set(boxes)) == len(boxes)


def test_sections_without_anything_say_so():
    empty = [
        mastery_section([]),
        spend_section({}),
        reject_section({}),
        example_section({}),
        forgetting_section(ForgettingMatrix(())),
        form_section({}),
        excluded_section([]),
        gate_section([], pooled=True),
        training_section({"student_tokens_by_part": {}, "seconds": {}}),
    ]
    text = render_page("t", "s", empty)
    for words in (
        "No gates yet", "wasn&#x27;t called", "No example was rejected", "No lessons",
        "chose no forms", "No module was excluded", "No gates.", "Nothing was trained",
    ):  # fmt: skip
        assert words in text


def test_figures_of_the_tables(page):
    text = re.sub(r"<[^>]+>", "|", page)
    assert re.search(r"module\|+before\|+stage 1\|+end\|+lost", text)
    # The best of linear equations was 0.9, the last 0.7.
    assert re.search(r"linear-equations\|+0\.20\|+0\.90\|+0\.70\|+\+0\.20", text)
    # What came out: both modules, and the means, beside the baseline's.
    assert re.search(r"addition\|+retained\|+1\.000\|+0\.500\|+0\.750\|+0\.625", text)
    assert re.search(r"mean\|+1\.000\|+0\.250\|+0\.750\|+0\.500", text)
    assert "22 · 55%, asked 50%" in text
    assert re.search(r"division\|+0\.60 fails\|+0\.75 fails", text)
    assert re.search(r"as written\|+0\.500\|+0\.750", text)
    assert re.search(r"consolidation\|+8,400", text)
    assert re.search(r"measure\|+24\|+4\|+480\|+1,000\|+0\.2700", text)
    assert "too small" in text
    assert "Items without a module: item-7." in text
    # Words stand at the left, figures at the right.
    assert '<th scope="col" class="text">modules</th><th scope="col">mean P_S</th>' in page


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium isn't installed (apt install chromium)")
def test_a_browser_shows_the_plots(page, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count("<svg") == 8
    assert done.stdout.count("<section") == 17
    assert "<script" not in done.stdout


def test_a_section_is_a_plain_value():
    section = Section("extra", "More", element("p", "a < b"))
    assert '<section id="extra"><h2>More</h2><p>a &lt; b</p></section>' in render_page(
        "t", "s", [section]
    )
