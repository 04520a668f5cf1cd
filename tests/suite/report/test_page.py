"""The page as a browser sees it; without Chromium, as its text."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from ioa_jax.files import read_json, write_json
from suite.report import write_report
from suite.report.answers import answers
from suite.report.page import best_baseline
from suite.report.paper import paper_view
from suite.report.summary import Figures, summarize
from suite.results import read_run
from tests.suite.runs import EFFECTS, environment, teach_from_pool, write_run

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason=f"no {', '.join(BROWSERS)}; `apt-get install chromium` gets one"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = write_run(
        tmp_path_factory.mktemp("runs") / "a",
        items=30,
        sweeps=[
            ("ioa", "diagnose.tau_gap", 0.1, 0.3, 0.2),
            ("ioa", "adapter.examples_per_seed", 5, 10, 0.3),
            ("ioa_no_gate", "adapter.examples_per_seed", 5, 10, 0.2),
        ],
        environments=[environment(cpu={"model": "<b>A CPU</b>", "cores": 2})],
    )
    write_report(directory)
    return directory


@pytest.fixture(scope="module")
def text(run):
    return (run / "report.html").read_text()


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def browse(path, *arguments):
    assert BROWSER is not None
    return subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--enable-logging=stderr", "--virtual-time-budget=2000", *arguments, f"file://{path}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )  # fmt: skip


def acted(run, tmp_path, script, *arguments):
    """The page after a script that leaves its finding in the title."""
    path = tmp_path / "page.html"
    # The page lets no script run but its own.
    text = re.sub('<meta http-equiv="Content-Sec[^>]*>', "", (run / "report.html").read_text())
    path.write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    found = re.search(r"<title>(.*?)</title>", browse(path, "--dump-dom", *arguments).stdout)
    assert found is not None
    return found[1]


def test_every_file_is_written(run):
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert {"table.json", "table.md", "table.csv", "table.tex", "report.html"} <= names
    assert len([name for name in names if name.startswith("plots/")]) == 9


def test_the_page_needs_no_other_file(text):
    page = Page(text)
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:,")), (tag, attributes)
    assert "@import" not in text
    assert not re.findall(r"url\((?!#)", text)


def test_links_lead_somewhere_and_ids_are_unique(text):
    ids = [a["id"] for _, a in Page(text).elements if "id" in a]
    assert len(ids) == len(set(ids))
    links = [a["href"] for a in Page(text).all("a")]
    assert len(links) >= 9
    assert {link[1:] for link in links} <= set(ids)


def test_it_can_be_used_from_a_keyboard(text):
    page = Page(text)
    # The first stop leads past the rest; what scrolls can be reached; what sorts is a button.
    first = next(a for tag, a in page.elements if tag in ("a", "button"))
    assert (first["class"], first["href"]) == ("skip", "#main")
    scrolling = [a for a in page.all("div") if a.get("class") == "scroll"]
    assert len(scrolling) > 15
    assert all(a["tabindex"] == "0" and a["role"] == "region" for a in scrolling)
    assert all(a["aria-label"] for a in scrolling)
    assert len([a for a in page.all("button") if a.get("class") == "sort"]) > 30
    assert all(a["role"] == "img" and a["aria-label"] for a in page.all("svg"))
    assert len(page.all("svg")) == 9


def test_settings_environment_and_spend_are_on_it(text):
    for words in ("learning_rate: 0.001", "0123456789abcdef", "0.10.2", "verification", "80.2"):
        assert words in text, words


def test_words_of_others_are_escaped(text):
    assert "&lt;b&gt;A CPU" in text
    assert "<b>A CPU" not in text


def test_remediation_has_its_price(run):
    result = read_run(run)
    found = {one.name: one for one in answers(result, summarize(Figures(result, resamples=50)))}
    view = found["gates"].view
    assert view is not None
    ioa = dict(zip(view.header, view.rows[0], strict=True))
    assert ioa["passed at once, %"].startswith("50.0 [")
    # 10,000 of 60,000 tokens trained on, the last 1,000 of 5,000 generated.
    assert ioa["student tokens in remediation, %"] == "16.7"
    assert ioa["teacher tokens in remediation, %"] == "20.0"


def test_time_and_tokens_have_a_row_a_step(run):
    result = read_run(run)
    found = {one.name: one for one in answers(result, summarize(Figures(result, resamples=50)))}
    assert found["matched"].text.count("sft_matched [") == len(found["matched"].text.splitlines())
    seconds, tokens = found["seconds"].view, found["training"].view
    assert seconds is not None
    assert tokens is not None
    assert seconds.header == (
        "method", "evaluation, s", "training, s", "method, s", "synthesis, s",
    )  # fmt: skip
    rows = {row[0]: row[1:] for row in seconds.rows}
    assert rows["ioa"] == ("9.0", "80.2", "92.8", "12.5")
    assert rows["sft"] == ("9.0", "80.2", "92.8", "-")
    assert rows["teacher (reference line)"] == ("9.0", "-", "-", "-")
    assert tokens.header[1:] == ("stage", "stage-remedial", "consolidation", "further", "all")
    rows = {row[0]: row[1:] for row in tokens.rows}
    assert rows["ioa"] == ("45,000", "10,000", "4,000", "1,000", "-")
    assert rows["sft"] == ("-", "-", "-", "-", "60,000")
    assert "teacher (reference line)" not in rows


def test_gates_of_a_first_pass_are_no_remedial_rounds(tmp_path):
    directory = write_run(tmp_path / "a", items=6, seeds=(0, 1), curves=False)
    for seed in (0, 1):
        teach_from_pool(directory / "cells" / f"ioa-seed{seed}")
    result = read_run(directory)
    (one,) = (
        one
        for one in answers(result, summarize(Figures(result, resamples=20)))
        if one.name == "gates"
    )
    assert one.view is not None
    found = {row[0]: row for row in one.view.rows}
    # No round of its own; of 5,000 teacher tokens 1,000 waited for the gates.
    _, stages, _, rounds, parked, student, teacher = found["ioa"]
    assert (stages, rounds, parked, student, teacher) == ("4", "0.0", "0.0", "0.0", "20.0")
    assert found["ioa_no_gate"][3] == "1.0"


def recorded(directory):
    """Levels, and gates by module and stage, as cells of today record them."""
    for seed in (0, 1, 2):
        path = directory / "cells" / f"ioa-seed{seed}" / "distill" / "record.json"
        record = read_json(path)
        record |= {
            "lessons_by_level": {"introductory": 10, "advanced": 20},
            "probes_by_level": {"introductory": 3, "intermediate": 1},
            "gates": {
                "first_pass": {"algebra/a": False, "algebra/b": True},
                "end": {"algebra/a": seed == 0, "algebra/b": True},
                "stages": 1,
                "stages_first_pass": {"1": False},
                "stages_end": {"1": seed == 0},
            },
        }
        write_json(path, record)
    # The oracle has no course, and was not taught in the third seed.
    for seed in (0, 1):
        path = directory / "cells" / f"oracle-seed{seed}" / "cell.json"
        cell = read_json(path)
        cell["notes"] = {"gates": {"end": {"algebra/a": True, "algebra/b": True, "c": False}}}
        write_json(path, cell)


def test_gates_stand_beside_the_oracles_and_lessons_beside_probes(tmp_path):
    directory = write_run(tmp_path / "a", items=8, effects={**EFFECTS, "oracle": 0.5}, curves=False)
    result = read_run(directory)
    before = {one.name: one for one in answers(result, summarize(Figures(result, resamples=20)))}
    assert before["passed"].view is before["levels"].view is None
    recorded(directory)
    result = read_run(directory)
    found = {one.name: one for one in answers(result, summarize(Figures(result, resamples=20)))}
    view, levels = found["passed"].view, found["levels"].view
    assert view is not None
    assert levels is not None
    assert view.rows == (
        ("ioa", "3 of 6 (50 %)", "4 of 6 (67 %)", "4 of 4 (100 %)", "1 of 3 (33 %)"),
    )
    by_module = found["passed-by-module"].view
    assert by_module is not None
    assert by_module.rows == (
        ("algebra/a", "0 of 3", "1 of 3", "2 of 2"),
        ("algebra/b", "3 of 3", "3 of 3", "2 of 2"),
        ("stage 1", "0 of 3", "1 of 3", "-"),
    )
    assert levels.rows == (
        ("introductory", "30", "33", "9", "75"),
        ("advanced", "60", "67", "0", "0"),
        ("intermediate", "0", "0", "3", "25"),
    )
    write_report(directory)
    assert "4 of 4 (100 %)" in (directory / "report.html").read_text()


def test_the_oracle_is_no_baseline(tmp_path):
    effects = {**EFFECTS, "oracle": 0.59, "uniform_right": 0.59}
    directory = write_run(tmp_path / "a", items=20, effects=effects, distill=False, curves=False)
    best = best_baseline(summarize(Figures(read_run(directory), resamples=20)), "micro-math")
    assert best is not None
    assert best.method in ("sft", "sft_matched")


def test_modules_are_in_words_and_in_a_table(text):
    assert "all modules: ioa scores" in text
    assert "deficient modules: ioa scores" in text
    assert text.count("<caption>Methods by modules</caption>") == 1


def test_seeds_agree_as_far_as_they_do(run):
    result = read_run(run)
    found = {one.name: one for one in answers(result, summarize(Figures(result, resamples=50)))}
    view = found["agreement"].view
    assert view is not None
    # Edges: {a, b, c}, {a, b}, {a, b}; targets: {x, y}, {x, y}, {y}.
    assert view.rows[1] == ("edges of the graph", "0.78", "0.67", "2", "2.3")
    assert view.rows[2] == ("targets", "0.67", "0.50", "1", "1.7")


def test_sizes_stand_beside_the_usual_one_of_the_same_method(run):
    result = read_run(run)
    found = {one.name: one for one in answers(result, summarize(Figures(result, resamples=50)))}
    view = found["sizes"].view
    assert view is not None
    assert [row[:2] for row in view.rows] == [
        (f"{of}@adapter.examples_per_seed", value)
        for of in ("ioa", "ioa_no_gate")
        for value in ("5", "10")
    ]


def test_the_questions_are_answered(text):
    for words in (
        "passed at once, %",
        "50.0 <span",  # Half of the stages.
        "modules given up a seed",
        "taught modules, mean fall",
        "edges of the graph",
        "generated tokens",
        "adapter.examples_per_seed",
    ):
        assert words in text, words
    assert "sft_matched [" in text
    assert "more than chance explains" in text


@needs_browser
def test_a_browser_shows_it_without_errors(run):
    seen = browse(run / "report.html", "--dump-dom")
    assert "CONSOLE" not in seen.stderr, seen.stderr
    assert seen.stdout.count("<svg") == 9
    # The script has run: the button is there and names the other theme.
    assert re.search(r'id="theme"[^>]*>Dark<', seen.stdout)


@needs_browser
@pytest.mark.parametrize(("scheme", "background"), [(1, "254, 254, 255"), (0, "18, 21, 28")])
def test_colours_follow_the_browser(run, tmp_path, scheme, background):
    script = "document.title = getComputedStyle(document.body).backgroundColor"
    setting = f"--blink-settings=preferredColorScheme={scheme}"
    assert acted(run, tmp_path, script, setting) == f"rgb({background})"


@needs_browser
def test_the_theme_button_changes_pictures_too(run, tmp_path):
    script = """
      const ink = () => getComputedStyle(document.querySelector("#figure-methods svg text")).fill;
      const before = ink();
      document.getElementById("theme").click();
      document.title = `${before} ${ink()}`;
    """
    # `soft`, light and dark.
    assert acted(run, tmp_path, script) == "rgb(98, 107, 124) rgb(162, 171, 188)"


@needs_browser
def test_tables_are_sorted_by_their_heads(run, tmp_path):
    script = """
      const table = document.querySelector("#methods table");
      const button = table.querySelectorAll(".sort")[1];
      const order = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
      button.focus();
      button.click();
      const falling = order()[0];
      button.click();
      document.title = `${falling}, ${order()[0]}, ${button.closest("th").ariaSort}`;
    """
    expected = "teacher (reference line), undistilled student, ascending"
    assert acted(run, tmp_path, script) == expected


@needs_browser
def test_a_narrow_window_scrolls_tables_not_the_page(run, tmp_path):
    script = "document.title = document.documentElement.scrollWidth <= window.innerWidth"
    assert acted(run, tmp_path, script, "--window-size=600,900") == "true"


@needs_browser
def test_text_of_figures_can_be_read_in_a_narrow_window(run, tmp_path):
    script = """
      const size = (text) => {
        const {a, b} = text.getScreenCTM();
        return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(a, b);
      };
      const sizes = [...document.querySelectorAll("svg text")].map(size);
      document.title = sizes.length > 100 && Math.min(...sizes) >= 10.9;
    """
    assert acted(run, tmp_path, script, "--window-size=500,900") == "true"


@needs_browser
def test_no_script_of_others_runs(run, tmp_path):
    path = tmp_path / "page.html"
    text = (run / "report.html").read_text()
    path.write_text(text.replace("</body>", "<script>document.title = 'run'</script></body>"))
    seen = browse(path, "--dump-dom")
    assert "<title>run</title>" not in seen.stdout
    assert "Content Security Policy" in seen.stderr


def test_a_run_that_has_just_begun_has_a_page(tmp_path):
    directory = write_run(tmp_path / "a", items=5, effects={"undistilled": 0.0, "sft": 0.1})
    for cell in (directory / "cells").glob("*/cell.json"):
        cell.unlink()
    write_report(directory)
    text = (directory / "report.html").read_text()
    assert "Not in this report: sft-seed0, not done yet" in text
    assert "No method that trains a student has finished yet" in text


def test_the_best_baseline_is_of_another_kind(run):
    table = summarize(Figures(read_run(run), resamples=50))
    best = best_baseline(table, "micro-math")
    assert best is not None
    methods = {row.method: row.scores["micro-math"].mean for row in table.rows}
    assert best.method in ("sft", "sft_matched")
    assert methods[best.method] == max(methods["sft"], methods["sft_matched"])


def test_the_papers_numbers_stand_beside_ours_only_where_they_belong(tmp_path):
    tasks = ("math", "gsm8k", "ifeval")
    for profile in ("paper-qwen2.5-3b", "paper-qwen2.5-7b"):
        directory = write_run(
            tmp_path / profile, items=5, seeds=(0,), tasks=tasks, profile=profile, distill=False
        )
        view = paper_view(summarize(Figures(read_run(directory), resamples=50)))
        if profile == "paper-qwen2.5-7b":
            assert view is None
            continue
        assert view is not None
        assert view.header == ("method", "gsm8k", "math")
        assert view.rows[3] == ("paper: IOA", "55.79", "15.53")
        assert {row[0].split(":")[0] for row in view.rows} == {"paper", "ours"}
        assert "weren't measured here" in view.notes[0]
