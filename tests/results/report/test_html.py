"""The report: one file that loads nothing, has the numbers of the table, shows every arm, and works for every run folder."""

import base64
import csv
import gzip
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from markupsafe import escape
from plotly.offline import get_plotlyjs

import results
from pgray.cli.entry import main
from results.analysis.verdicts import MEANINGS, Verdict
from results.loading.study import StudySummary
from results.present.column_layout import one_line
from results.present.table_model import build_table
from results.report import html
from results.report.answer import search_sentence, verdict_sentence
from results.report.facts import log_tail
from results.report.html import report, write_report
from results.report.terms import VERDICT_KINDS
from tests.results.five_seeds import ARMS, HOSTILE, SEEDS, write_five_seeds
from tests.results.synthetic import Run
from trainer.errors import InputError
from trainer.records.files import write_json, write_text

MAX_BYTES = 5_000_000
FILES_OF = {
    "finished": ["result", "config", "artifact"], "failed": ["log", "config"], "killed": ["log", "config"], "queued": [],
}  # fmt: skip
VOID = {"meta", "br", "link", "img"}


class Page(HTMLParser):
    """Parses a page: texts by section, tables as lists of cells, links, scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.texts: dict[str, str] = {}
        self.scripts: dict[str, str] = {}
        self.tags: set[str] = set()
        self.policy = self.icon = ""
        self.ids: list[str] = []
        self._open: list[str] = []
        self._section = "top"
        self._script = ""
        self.feed(text)
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        if given.get("rel") == "icon":
            self.icon = given["href"]
        else:
            self.links += [
                given[name] for name in ("src", "href", "action", "data", "poster", "srcset") if name in given
            ]
        self.ids += [given["id"]] if "id" in given else []
        if tag == "meta" and given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        if tag in VOID:
            return
        self._open.append(tag)
        if tag == "section":
            self._section = given["id"]
        elif tag == "table":
            self.tables.setdefault(self._section, []).append([])
        elif tag == "tr":
            self.tables[self._section][-1].append([])
        elif tag in ("td", "th"):
            self.tables[self._section][-1][-1].append("")
        elif tag == "script":
            self._script = given.get("id", "code")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "section":
            self._section = "bottom"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("script", "style"):
            self.scripts[self._script] = self.scripts.get(self._script, "") + data
            return
        self.texts[self._section] = self.texts.get(self._section, "") + data
        if "td" in self._open or "th" in self._open:
            self.tables[self._section][-1][-1][-1] += data

    @property
    def charts(self) -> dict[str, dict[str, Any]]:
        return dict(json.loads(self.scripts["charts-data"])["charts"]) if "charts-data" in self.scripts else {}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_five_seeds(tmp_path_factory.mktemp("runs") / "five-seeds").root


@pytest.fixture(scope="module")
def page(root: Path) -> Page:
    return Page(report(root))


def test_it_is_one_file_below_the_limit_that_loads_nothing(root: Path, page: Page) -> None:
    path = write_report(root)
    assert path == root / "report.html"
    assert path.stat().st_size < MAX_BYTES
    assert page.policy.startswith("default-src 'none'")
    assert "http" not in page.policy
    assert not [link for link in page.links if "//" in link or link.startswith(("http", "data:", "/"))]
    assert not page.tags & {"img", "iframe", "object", "embed", "base"}
    assert page.icon.startswith("data:image/svg+xml,")
    assert len(page.ids) == len(set(page.ids))
    anchors = [link for link in page.links if link.startswith("#")]
    assert {link[1:] for link in anchors} <= set(page.ids)
    for link in page.links:
        assert link in anchors or (root / unquote(link)).is_file(), link


def test_contents_list_every_section_and_every_chart_has_an_anchor(root: Path, page: Page) -> None:
    sections = set(page.texts) - {"top", "bottom"}
    contents = report(root).partition("<nav")[2].partition("</nav>")[0]
    assert {f'href="#{section}"' for section in sections} == set(re.findall(r'href="#[^"]*"', contents))
    assert set(page.charts) <= set(page.ids)


def test_plotly_is_inside_and_is_the_installed_one(page: Page) -> None:
    assert gzip.decompress(base64.b64decode(page.scripts["plotly"])).decode() == get_plotlyjs()
    assert len(page.charts) == 5


def test_every_arm_is_in_every_table(page: Page) -> None:
    compared, described = page.tables["table"]
    for table in (compared, described):
        assert [row[0] for row in table[1:]] == list(ARMS)
    assert {row[0] for row in page.tables["trials"][0][1:]} == set(ARMS)
    configs = [row[0] for row in page.tables["configs"][0][1:] if row[0] in ARMS]
    assert configs == [arm for arm in ARMS if arm != "int6"]


def test_numbers_equal_those_of_the_table(root: Path, page: Page) -> None:
    run_table = build_table(root)
    for arm_table, table in zip(run_table.tables, page.tables["table"], strict=True):
        texts = {one_line(column.heading): column.texts() for column in arm_table.columns.values()}
        rows = zip(*(texts[heading.strip()] for heading in table[0]), strict=True)
        assert [" ".join(" ".join(row).split()) for row in rows] == [
            " ".join(" ".join(row).split()) for row in table[1:]
        ]
    trials = {(row["arm"], str(row["seed"])): row for row in csv.DictReader(io.StringIO(results.load(root).to_csv()))}
    for row in page.tables["trials"][0][1:]:
        own = trials[row[0], row[1]]
        assert row[2] == own["status"]
        assert row[3].split() == FILES_OF[own["status"]]
        for cell, name in zip(row[4:7], ("float_bpb", "post_quant_bpb", "sliding_bpb"), strict=True):
            assert cell == (f"{float(own[name]):.6f}" if own[name] else "–")


def test_terms_of_the_decomposition_add_up(page: Page) -> None:
    heading, *rows = page.tables["decomposition"][0]
    assert heading == ["arm", "Δ", "at equal steps", "fewer steps", "averaging", "quant gap", "sliding window"]
    assert len(rows) == 7
    for _, delta, *terms in rows:
        assert sum(map(float, terms)) == pytest.approx(float(delta), abs=3e-4)


def test_hostile_names_are_text(root: Path, page: Page) -> None:
    text = report(root)
    assert HOSTILE not in text
    assert "<script>alert" not in text
    assert HOSTILE in page.texts["top"]  # the question, as text
    assert set(page.scripts) <= {"", "code", "plotly", "charts-data"}
    assert "alert" not in page.scripts["code"]


def test_failures_and_kills_have_reason_and_the_trainers_last_line(page: Page) -> None:
    failed, killed = page.texts["failed"], page.texts["killed"]
    assert failed.count("muon-vs") == len(SEEDS)
    assert "failed (diverged)" in failed
    assert f"loss is not finite at step 1100 {HOSTILE}" in failed
    assert "error: loss is not finite at step 1100" in failed  # from the log, above the report of torchrun
    assert "torch/distributed" not in failed
    assert "0.012 worse than int6 at step 1,000" in killed
    assert page.texts["top"].count("waiting seed") == len(SEEDS)


def test_configs_show_what_differs(page: Page) -> None:
    rows = page.tables["configs"][0]
    assert ["late-qat", "qat.enabled", "false", "true"] in rows
    assert ["quant.bits.mlp", "6", "4"] in rows  # the second key of an arm
    assert "waiting" in page.texts["configs"]
    assert "unknown: never launched" in page.texts["configs"]
    assert not [row for row in rows if "seed" in row]


def test_cost_and_provenance(page: Page) -> None:
    cost = {row[0]: row[1:] for row in page.tables["cost"][0][1:]}
    assert cost["all"] == ["52", "81.75", "220.10", "10.00"]
    assert cost["failed"] == ["5", "1.25", "3.50", "–"]
    for word in (
        "a" * 40,
        "uncommitted",
        "pgray run five.yaml",
        "node-7",
        "8 ranks on NVIDIA H100",
        "train.wallclock_s 600",
    ):
        assert word in page.texts["provenance"]


def test_the_verdict_is_at_the_top(page: Page) -> None:
    assert "late-qat beats int6 by 0.01" in page.texts["top"]
    assert "1 arm is over a limit" in page.texts["top"]
    assert "3 arms are without a result" in page.texts["top"]
    assert "late-qat sets qat.enabled false → true" in " ".join(page.texts["top"].split())
    launched = "2027-01-15 08:00 UTC · preset sp1024-11l · 8 ranks on NVIDIA H100 80GB HBM3 · commit aaaaaaaaaa with"
    assert page.texts["top"].index(launched) < page.texts["top"].index("Does late QAT")


def test_arm_delta_and_verdict_are_the_first_columns(page: Page) -> None:
    heading = [text.strip() for text in page.tables["table"][0][0]]
    assert heading[:3] == ["arm", "Δ ± 95 % CI", "verdict"]


def test_verdicts_have_a_shape_and_a_colour_and_terms_an_explanation(root: Path) -> None:
    text, style = report(root), (Path(html.__file__).parent / "templates" / "report.css").read_text()
    kinds: dict[Verdict, str] = {"WIN": "good", "LOSS": "bad", "NOISE": "even"}
    for verdict, kind in kinds.items():
        assert f'<span class="badge {kind}" title="{escape(MEANINGS[verdict])}">{verdict}</span>' in text
    for kind in set(VERDICT_KINDS.values()) - {"even"}:
        assert f".badge.{kind}::before" in style
    assert '<span class="badge even">NEVER SEEN</span>' in verdict_cell("NEVER SEEN [1]")
    for heading in ("p (Holm)", "verdict", "gap ± std", "at equal steps", "GPU-hours", "sliding_bpb"):
        assert re.search(rf'<abbr title="[^"]+">{re.escape(heading)}</abbr>', text), heading


def verdict_cell(text: str) -> str:
    macros = html._template().environment.get_template("macros.html").module
    return str(macros.verdict(text, VERDICT_KINDS, "table-0"))  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["empty", "one arm", "all failed", "no control number", "unreadable"])
def test_every_run_folder_has_a_report(tmp_path: Path, kind: str) -> None:
    run = Run(tmp_path / "bits")
    expected = {
        "empty": "No trials yet.",
        "one arm": "int8 is the only arm",
        "all failed": "No comparison possible: the control has no result.",
        "no control number": "No comparison possible: the control has no result.",
        "unreadable": "No arm beats int8",
    }[kind]
    if kind == "one arm":
        run.finish("int8", 1)
    if kind in ("all failed", "no control number"):
        run.entry("int8", 1, "failed", failure_kind="oom", reason="out of memory")
        run.entry("int6", 1, "failed", failure_kind="oom", reason="out of memory")
    if kind == "no control number":
        run.finish("int4", 1)
    if kind == "unreadable":
        for seed in (1, 2, 3):
            run.finish("int8", seed, 2.5 + seed / 100)
            run.finish("int6", seed, 2.5 + seed / 99)
        write_text(run.layout.trial("int6-s3-0").result, "{")
        run.finish("int6", 4, 2.5)
        run.finish("int8", 4, 2.51)
        write_text(run.layout.provenance, "not json")
        write_text(run.layout.sweep, "[")
    page = Page(report(run.layout.root))
    assert expected in page.texts["top"]
    if kind == "empty":
        assert "table" not in page.tables
        assert "plotly" not in page.scripts  # without charts plotly.js is not embedded
    if kind == "all failed":
        assert page.texts["failed"].count("out of memory") == 2
        assert "never launched" in page.texts["failed"]


def test_a_search_that_cannot_be_read_is_mentioned_in_one_line(tmp_path: Path) -> None:
    run = Run(tmp_path / "bits")
    run.finish("int8", 1)
    before = Page(report(run.layout.root))
    assert "search" not in before.texts["top"]
    run.layout.study.write_text('{"objectives": {}, "trials": [')
    page = Page(report(run.layout.root))
    (line,) = [line for line in page.texts["top"].splitlines() if "search" in line]
    assert line.removeprefix("Does it?").startswith(
        "The search is not shown: study.json: search: unreadable: Invalid JSON"
    )
    assert line.endswith("run the sweep again to rewrite the file.")
    assert "int8 is the only arm: there is nothing to compare it with." in page.texts["top"]
    assert len(page.charts) == len(before.charts)
    run.layout.study.write_text('{"trials": [{"name": "t000"}], "best": ["t009"]}')
    page = Page(report(run.layout.root))
    assert "No best proposal." in page.texts["top"]
    assert "Proposals of the search: no proposal has been scored yet." in page.texts["search"]
    assert page.tables["search"][0][1][:2] == ["t000", ""]


def test_a_cross_of_factors_shows_its_effects(tmp_path: Path) -> None:
    run = Run(tmp_path / "cross", "name: cross\ncontrol: none\n")
    arms = {"none": (False, 0), "qat": (True, 0), "ema": (False, 1), "qat+ema": (True, 1)}
    for i, (arm, (qat, ema)) in enumerate(arms.items()):
        for seed in (1, 2, 3):
            name = run.finish(arm, seed, 2.5 + seed / 100 + i / 1000 * seed)
            write_json(run.layout.trial(name).config, {"qat": {"enabled": qat}, "ema": ema, "seed": seed})
    heading, *rows = Page(report(run.layout.root)).tables["effects"][0]
    table = results.effects(results.load(run.layout.root), metric="post_quant_bpb")
    assert heading == ["effect", "levels", "Δ ± 95 % CI", "p (Holm)"]
    assert [row[0] for row in rows] == list(table["term"])
    assert [float(row[2].split(" ")[0]) for row in rows] == pytest.approx(list(table["estimate"]), abs=5e-5)
    page = Page(report(run.layout.root))
    assert list(page.texts).index("effects") < list(page.texts).index("table")  # under the headline
    assert "interactions" in page.charts


def test_imported_rows_are_reported(tmp_path: Path) -> None:
    log = tmp_path / "submission.json"
    write_json(log, {"name": "x", "val_bpb": 1.2, "bytes_total": 15_000_000})
    code = main(
        ["import", str(log), "--into", str(tmp_path / "theirs"), "--arm", "<b>theirs</b>", "--seed", "1", "--json"]
    )
    assert code == 0
    page = Page(report(tmp_path / "theirs"))
    assert "<b>theirs</b>" in page.texts["top"]
    assert page.tables["trials"][0][1][0] == "<b>theirs</b>"


def test_another_control_must_exist(root: Path) -> None:
    assert "Sliding bpb against wide".lower() in report(root, "wide").lower()
    with pytest.raises(InputError, match="not among the arms"):
        report(root, "nobody")


def test_log_tail_without_a_launcher_report_is_the_end_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("one\n\ntwo\n")
    assert log_tail(log) == ["one", "two"]
    log.write_text("E1121 04:41:09.9 59 torch/distributed/run.py:1] cannot start\n")
    assert log_tail(log) == ["E1121 04:41:09.9 59 torch/distributed/run.py:1] cannot start"]
    log.write_bytes(b"\xff\xfe" + b"x" * 100_000 + b"\nlast\n")
    assert log_tail(log)[-1] == "last"


def test_too_few_seeds_are_inconclusive(tmp_path: Path) -> None:
    run = Run(tmp_path / "bits")
    for seed in (1, 2):
        run.finish("int8", seed, 2.5)
        run.finish("int6", seed, 2.4)
    said = verdict_sentence(build_table(run.layout.root))
    assert said == "Too few seeds: no arm has 3 to compare; int6 is 0.1000 bpb ahead of int8 so far."


def test_the_command_prints_the_path(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(root)]) == 0
    assert capsys.readouterr().out == f"{root / 'report.html'}\n"
    assert main(["report", str(root), "--control", "qna", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == {"report": str(root / "report.html"), "bytes": (root / "report.html").stat().st_size}
    assert main(["report", str(root), "--control", "nobody"]) == 2
    assert main(["report", str(root / "trials")]) == 2
    assert "Traceback" not in capsys.readouterr().err


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.mark.skipif(BROWSER is None, reason="no Chrome or Chromium")
def test_a_browser_unpacks_plotly_and_draws(root: Path, tmp_path: Path) -> None:
    write_report(root)
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=30000",
    ]
    command = [str(BROWSER), *options, "--dump-dom", (root / "report.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    drawn = done.stdout.partition('id="charts"')[2].partition("</section>")[0]
    assert drawn.count("<figure") == 5
    assert "Share chart" not in drawn
    assert done.stdout.count("<button>") > 20  # the headings of the tables sort
    for labels in re.findall(r'<g class="[xy]axislayer-above">.*?</g></g>', drawn):
        ticks = re.findall(r'class="[xy]tick"><text.*?>(.*?)</text>', labels)
        assert len(ticks) == len(set(ticks)), ticks
    assert drawn.count('class="main-svg"') >= 5
    assert "late-qat" in drawn.partition("<svg")[2]


def test_a_search_is_summarized() -> None:
    trials = [
        {"name": "t000", "state": "complete", "is_feasible": False, "values": {"sliding_bpb": 1.1}},
        {
            "name": "t001",
            "state": "complete",
            "is_feasible": True,
            "values": {"sliding_bpb": 1.25, "artifact_bytes": 398986},
        },
    ]
    study = StudySummary.model_validate(
        {
            "objectives": {"sliding_bpb": "min"},
            "constraints": ["artifact_bytes <= 400000"],
            "best": ["t001"],
            "importances": {},
            "trials": trials,
        }
    )
    met = "1 of 2 proposals met artifact_bytes <= 400000."
    best = "Best proposal: t001 (sliding_bpb 1.2500, artifact_bytes 398,986)"
    assert search_sentence(study) == f"{best}; {met}"
    assert search_sentence(study.model_copy(update={"best": []})) == f"No best proposal; {met}"
    both = study.model_copy(update={"best": ["t001", "t000"]})
    assert search_sentence(both) == f"{best}, one of 2 non-dominated proposals; {met}"
    assert search_sentence(study.model_copy(update={"constraints": []})) == f"{best}."
    assert search_sentence(None) == ""
