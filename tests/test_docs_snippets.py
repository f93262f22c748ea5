"""What the pages show can be used: commands and options exist, configurations are taken, Python is Python."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def fences(language):
    """(page, text) of each fenced block, also of an indented one."""
    fence = re.compile(rf"^( *)```{language}\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
    return [
        (page, re.sub(rf"(?m)^{indent}", "", text))
        for page in PAGES
        for indent, text in fence.findall(page.read_text())
    ]


def commands():
    """Each command line of ours, without what is behind ``--``."""
    for page, text in fences("console"):
        for line in text.splitlines():
            if line.startswith("$ sparkbroker "):
                yield pytest.param(line[2:].partition(" -- ")[0].split()[1:], id=f"{page.stem}: {line[2:]}")


def command_of(words) -> tuple[Any, list[str]]:
    """The command, and what is left of the words."""
    from sparkbroker.broker.cli.main import app

    found: Any = typer.main.get_command(app)
    rest = list(words)
    while rest and rest[0] in getattr(found, "commands", {}):
        found = found.commands[rest.pop(0)]
    return found, rest


@pytest.mark.parametrize("words", list(commands()))
def test_a_command_and_its_options_exist(words):
    command, rest = command_of(words)
    assert not hasattr(command, "commands"), f"{words[0]} is no command"
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    assert {word for word in rest if word.startswith("-")} <= known


@pytest.mark.parametrize(("page", "text"), [pytest.param(*found, id=found[0].stem) for found in fences("python")])
def test_python_is_python(page, text):
    compile(text, str(page), "exec")


def test_the_table_of_pod_settings_has_each_once():
    from sparkbroker.broker.domain.pods.settings import SETTINGS

    settings, _, _ = (ROOT / "docs" / "reference" / "pod-settings.md").read_text().partition("## Bounds")
    rows = settings.splitlines()
    names = [name for row in rows if row.startswith("| `") for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(names) == sorted(SETTINGS)


@pytest.mark.parametrize(
    "text",
    [pytest.param(text, id=page.stem) for page, text in fences("toml") if "[capacity" in text or "[profiles" in text],
)
def test_a_configuration_can_be_used(text, tmp_path):
    config = tmp_path / "broker.toml"
    config.write_text(f'{text}\n[store]\nstate_folder = "{tmp_path}/state"\n')
    done = subprocess.run(
        [sys.executable, "-m", "sparkbroker.broker", "serve", "--config", str(config), "--check-config"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
