import base64
import hashlib
import html
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from ioa_jax.organizer.curriculum import plan_curriculum
from ioa_jax.organizer.retention import ForgettingMatrix
from ioa_jax.report import course
from ioa_jax.report.charts import Arrow, Bar, Curve, bar_chart, draw_curves, graph_plot
from ioa_jax.report.draw import draw_plot
from ioa_jax.report.finished import RunSpend
from ioa_jax.report.page import Section, Text, render_page
from ioa_jax.report.sections import (
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
from tests.report import values

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
        ["of a made-up student"],
        [
            outcome_section(values.RECORD),
            *diagnosis_sections(diagnosis),
            curriculum_section(curriculum),
            lesson_section(values.RECORD, {"1": (0.25, 0.5), "2": (0.75, 0.5)}),
            form_section(values.FORMS),
            excluded_section(values.RECORD.excluded),
            gate_section(values.gates(), pooled=True),
            mastery_section(values.gates(), ticks=("stage", "pass", "end")),
            retention_section(values.RECORD),
            forgetting_section(values.MATRIX),
            spend_section(values.SPEND),
            training_section(values.RECORD.spend),
            reject_section(values.REJECTS),
            example_section(values.EXAMPLES),
        ],
    )


def svgs(page):
    return re.findall(r"<svg.*?</svg>", page, re.DOTALL)


def words(svg):
    return {element.text for element in ET.fromstring(svg).iter() if element.text}


def test_no_text_of_a_model_becomes_markup(page):
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert(1)" in page
    assert "1. First\n2. &lt;/pre&gt;" in page
    assert "&lt;b&gt;odd" in page
    assert "&lt;i&gt;6&lt;/i&gt;" in page
    # Two texts of an example, one that was rejected, and the conclusion's.
    assert page.count("<pre ") == 4


def test_no_name_is_markup_in_a_figure():
    name = 'a/<script>x</script>--> $\\frac{1$ "]]>\x00\N{SNOWMAN}\U0001f600 #fefeff'
    ends = (name, "b/_b")
    plots = [
        bar_chart("t", name, name, [Bar(name, 1.0, name)], name),
        graph_plot("g", name, name, [Arrow(ends)], [[ends]], {name: ("x", "red")}),
        draw_plot(
            "c", name, name, (6.0, 3.0), lambda f: draw_curves(f, [Curve(name, [(0.0, 1.0)], {})])
        ),
    ]
    for plot in plots:
        svg = plot.inline()
        assert not [element for element in ET.fromstring(svg).iter() if "script" in element.tag]
        assert "<script" not in svg
        assert any("<script>" in text for text in words(svg))
        assert "\x00" not in svg


def test_only_the_pages_own_script_may_run_and_nothing_is_loaded(page):
    assert re.findall(r"(?:src|href)=\"(?!#|data:,\")[^\"]*\"", page) == []
    assert not re.findall(r"url\((?!#)", page)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = html.unescape(policy)
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}';" in policy


def test_every_section_is_linked_and_every_plot_named(page):
    names = re.findall(r"<section id=\"([^\"]+)\"", page)
    assert names == re.findall(r"<li><a href=\"#([^\"]+)\"", page)
    assert len(names) == len(set(names)) == 17
    # Gaps, graph, severity, levels, two stages, forgetting, spend and rejects.
    assert len(svgs(page)) == 9
    for plot in svgs(page):
        root = ET.fromstring(plot)
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-label"]
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_text_of_figures_can_be_read_however_narrow_the_window_is(page):
    for plot in svgs(page):
        least, most = map(int, re.findall(r"min-width:(\d+)px;max-width:(\d+)px", plot)[0])
        width = float(re.findall(r'viewBox="0 0 ([\d.]+)', plot)[0])
        sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", plot)]
        assert sizes
        assert min(sizes) * least / width >= 10.95
        assert most >= least


def bars_of(plot):
    """(left end, width, colour) of the bars, which are the paths with a colour of the palette."""
    found = []
    for path in ET.fromstring(plot.inline()).iter("{http://www.w3.org/2000/svg}path"):
        ends = [float(x) for x in re.findall(r"[ML] ([\d.]+) ", path.attrib["d"])]
        colour = re.search(r"fill: var\(--(\w+)\)", path.attrib.get("style", ""))
        if colour and len(ends) == 4:
            found.append((min(ends), max(ends) - min(ends), colour[1]))
    return found


def test_bars_are_as_long_as_their_values():
    a, b, c = bars_of(
        bar_chart(
            "t",
            "t",
            "t",
            [Bar("a", 1.0, "", "blue", (0.5, 1.5)), Bar("b", -0.5, "", "red"), Bar("c", 0.25, "")],
            "x",
        )
    )
    assert (a[2], b[2], c[2]) == ("blue", "red", "blue")
    assert b[0] + b[1] == pytest.approx(a[0], abs=0.01)
    assert b[1] == pytest.approx(a[1] / 2, rel=1e-3)
    assert c[1] == pytest.approx(a[1] / 4, rel=1e-3)


def test_a_chart_of_zeros():
    (bar,) = bars_of(bar_chart("t", "t", "t", [Bar("a", 0.0, "")], "x"))
    assert bar[1] == 0


def test_curves_are_named_in_the_order_of_their_ends():
    curves = [
        Curve("a", [(0.0, 0.5), (2.0, 0.75)], {}),
        Curve("b", [], {}),
        Curve("_c", [(0.0, 0.1), (2.0, 1.0)], {}),
        Curve(None, [(0.0, 3.0)], {}),
    ]
    plot = draw_plot("t", "t", "t", (6.0, 3.0), lambda figure: draw_curves(figure, curves))
    assert plot.svg is not None
    texts = [element.text for element in ET.fromstring(plot.svg).iter() if element.text]
    assert [text for text in texts if "  " in text.strip()] == ["1  _c", "0.75  a"]


def test_prerequisites_stand_left_of_what_needs_them():
    diagnosis = values.diagnosis()
    plot = course.graph("t", "t", diagnosis)
    assert plot.svg is not None
    left = {}
    for element in ET.fromstring(plot.svg).iter("{http://www.w3.org/2000/svg}text"):
        moved = re.search(r"translate\(([\d.]+)", element.attrib.get("transform", ""))
        left[element.text] = float(moved[1] if moved else element.attrib["x"])
    # What no edge joins isn't drawn.
    assert "primes" not in left
    for edge in diagnosis.graph.edges:
        names = [end.split("/")[1] for end in (edge.prerequisite, edge.dependent)]
        if all(name in left for name in names):
            assert left[names[0]] + 100 < left[names[1]]
    states = {text for text in left if text and "·" in text}
    assert states == {"algebra · target", "arithmetic · target", "algebra · deficient"}
    # Solid is of the population, dashed of its thirds, dotted what the teacher named.
    dashes = re.findall(r"stroke-dasharray: ([\d. ,]+)", plot.svg)
    assert len(set(dashes)) == 2


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
        training_section(RunSpend(student_tokens_by_part={})),
    ]
    text = render_page("t", ["s"], empty)
    for words in (
        "No gates yet", "wasn&#39;t called", "No example was rejected", "No lessons",
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
    assert "22 · 55%, asked 50%, probes 75%" in text
    assert re.search(r"division\|+0\.60 fails\|+0\.75 fails", text)
    assert re.search(r"as written\|+0\.500\|+0\.750", text)
    assert re.search(r"consolidation\|+8,400", text)
    assert re.search(r"measure\|+24\|+480\|+1,000\|+0\.2700", text)
    assert "too small" in text
    assert "Items without a module: item-7." in text
    # Words stand at the left, figures at the right.
    assert '<th scope="col" class="words"><button type="button" class="sort">modules<' in page
    assert '<th scope="col"><button type="button" class="sort">mean P_S<' in page


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
    assert done.stdout.count("<svg") == 9
    assert done.stdout.count("<section") == 17
    # The script has run: the button is there and names the other theme.
    assert re.search(r'id="theme"[^>]*>(Dark|Light)<', done.stdout)


def test_a_section_is_a_plain_value():
    page = render_page("t", ["s"], [Section("extra", "More", ["a < b", Text("c > d", "note")])])
    assert '<h2 id="extra-title">More</h2>\n<p>a &lt; b</p>\n' in page
    assert '<p class="note">c &gt; d</p>' in page


def test_help_draws_nothing():
    code = "import sys, ioa_jax.cli, ioa_jax.commands.distill; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
