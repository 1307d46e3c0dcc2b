"""Documents that quote the code are held to it."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from cli.main import COMMANDS
from jobs.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_of_settings_is_complete() -> None:
    rows = dict(re.findall(r"^\| `DMFT_([A-Z_]+)` \| (.*?) \|", README, re.MULTILINE))
    assert {name.lower() for name in rows} == set(Settings.model_fields)
    for name, default in rows.items():
        field = Settings.model_fields[name.lower()]
        shown = "" if field.default in (None, "") else str(field.default)
        assert default.strip("`") == shown, name


def test_compose_sets_only_settings_that_exist_and_no_default_secret() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    compose = yaml.safe_load(text)
    assert set(compose["services"]) == {"redis", "api", "worker", "worker-gpu"}
    for service in compose["services"].values():
        for name in service.get("environment", {}):
            if name.startswith("DMFT_"):
                assert name.removeprefix("DMFT_").lower() in Settings.model_fields, name
        own = {"host", "port", "device", "artifact_dir", "log_file"}  # as the images and commands have them
        given = {name.removeprefix("DMFT_").lower() for name in service.get("environment", {})}
        assert "DMFT_REDIS_URL" not in service["environment"] or set(Settings.model_fields) - own <= given
    assert re.findall(r"DMFT_REDIS_PASSWORD[^}]*", text).count("DMFT_REDIS_PASSWORD:-") == 0
    assert "${DMFT_REDIS_PASSWORD:?" in text
    for name in ("api", "worker", "worker-gpu"):
        assert compose["services"][name]["command"][0] in COMMANDS
        assert compose["services"][name]["depends_on"]["redis"]["condition"] == "service_healthy"


def test_image_copies_every_package() -> None:
    copied = set(re.findall(r"^COPY (\w+) \1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks", "examples"}
    assert copied == packages


def test_files_that_documents_name_exist() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for path in re.findall(
            r"(?<![\w/.-])((?:[a-z_]+/)+[a-z_0-9]+\.(?:py|md|lua|json))", document.read_text()
        ):
            assert (ROOT / path).is_file(), (document.name, path)


def test_every_constraint_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().split()
    assert all(re.fullmatch(r"[\w.\-]+==[\w.+!]+", line) for line in lines)
    assert "torch==2.13.0" in lines


def test_nothing_of_the_machine_it_was_made_on() -> None:
    suffixes = {".py", ".md", ".toml", ".yml", ".lua", ".html"}
    for path in ROOT.rglob("*"):
        hidden = path.relative_to(ROOT).parts[0].startswith(".")
        if path.suffix in suffixes and not hidden and path != Path(__file__):
            assert not re.search(r"/work/|/root/|pypi\.org|file://", path.read_text()), path
