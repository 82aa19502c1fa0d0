"""Docs describe every verb, column, config key, preset, folder and make target."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from results.schema import NAMES
from trainer.presets.resolve import config_keys, load_preset, preset_names

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def _verbs() -> Iterator[tuple[str, str]]:
    """Yield every verb and its help; `data build` for a verb within a group."""
    from pgray.cli.entry import app

    def walk(command: object, words: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        commands = getattr(command, "commands", None)
        if commands is None:
            yield " ".join(words), str(getattr(command, "help", None) or "")
        else:
            for name, inner in commands.items():
                yield from walk(inner, (*words, name))

    yield from walk(typer.main.get_command(app), ())


def test_every_verb_has_help_and_is_in_the_readme() -> None:
    verbs = dict(_verbs())
    assert len(verbs) >= 8
    for verb, text in verbs.items():
        assert text.strip(), f"pgray {verb} has no help"
        assert f"pgray {verb}" in README, f"pgray {verb} is not in README.md"


def test_every_verb_in_the_readme_exists() -> None:
    verbs = dict(_verbs())
    groups = {verb.split()[0] for verb in verbs if " " in verb}
    for name, inner in re.findall(r"`pgray ([a-z]+)(?: ([a-z]+))?", README):
        assert f"{name} {inner}" in verbs if name in groups else name in verbs, f"README.md shows pgray {name} {inner}"


def test_generated_pages_are_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs/generate.py", "--check"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_every_column_and_key_is_described() -> None:
    columns = (ROOT / "docs/columns.md").read_text(encoding="utf-8")
    config = (ROOT / "docs/config.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert f"| `{name}`" in columns
    for key in config_keys():
        assert re.search(rf"^\| `{re.escape(key)}` .*\| [^|\s][^|]* \|$", config, re.MULTILINE), f"{key} has no remark"


def test_every_preset_is_in_the_readme() -> None:
    for name in preset_names():
        assert f"`{name}`" in README


def test_every_preset_with_a_published_number_lists_its_differences() -> None:
    differences = (ROOT / "docs/differences.md").read_text(encoding="utf-8")
    published = [name for name in preset_names() if "published" in load_preset(name).about.lower()]
    assert len(published) >= 2
    for name in published:
        assert f"`{name}`" in differences
    assert "docs/differences.md" in README


def test_every_make_target_is_described() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"setup", "quickstart", "test", "check", "bench", "golden", "clean", "help"} <= set(targets)
    for target in targets:
        assert f"`make {target}`" in README + CONTRIBUTING, f"`make {target}` is in neither README nor CONTRIBUTING"


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page} links to {target}"


def test_every_folder_of_the_tree_has_a_phrase_in_the_readme() -> None:
    for folder in ("sweeps", "pgray", "results", "trainer", "tests", "docs", "bench"):
        assert re.search(rf"^{folder}/ ", README, re.MULTILINE), f"{folder}/ has no phrase in README.md"


def test_contributing_is_short() -> None:
    assert len(CONTRIBUTING.splitlines()) < 75


def test_decision_notes_are_short() -> None:
    for path in (ROOT / "docs/decisions").glob("*.md"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 40, path.name


def test_the_sweep_in_the_readme_is_a_sweep() -> None:
    from pgray.spec.expand import expand
    from pgray.spec.sweep import Sweep

    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    expansion = expand(Sweep.from_text(text, "README.md"))
    assert [arm.name for arm in expansion.arms] == ["int8", "int4-mlp", "int4-mlp+qat"]
    assert expansion.control == "int8"
