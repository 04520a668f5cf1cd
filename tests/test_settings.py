"""Settings as they stand in files, and as `ioa settings` prints them."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from ioa_jax.cli import app
from ioa_jax.config import DistillConfig, MethodConfig
from ioa_jax.errors import InputError
from ioa_jax.identifier.settings import DiagnoseSettings
from ioa_jax.settings import find_section, read_settings, settings_lines


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["settings", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def fields(kind: type[BaseModel], place: str = "") -> typing.Iterator[tuple[str, str]]:
    for name, field in kind.model_fields.items():
        section = next(
            (
                one
                for one in (field.annotation, *typing.get_args(field.annotation))
                if isinstance(one, type) and issubclass(one, BaseModel)
            ),
            None,
        )
        if section is not None:
            yield from fields(section, f"{place}{name}.")
        else:
            yield f"{place}{name}", field.description or ""


def test_what_is_printed_is_a_file_of_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text("\n".join(settings_lines(MethodConfig)))
    assert read_settings(MethodConfig, path) == MethodConfig()
    path.write_text(printed())
    needed = ("teacher.spec=smollm2", "student.spec=smollm2", "seeds=s.jsonl")
    found = read_settings(DistillConfig, path, needed)
    assert found == read_settings(DistillConfig, None, needed)
    path.write_text(printed("diagnose"))
    assert read_settings(DiagnoseSettings, path) == DiagnoseSettings()
    assert max(map(len, printed().splitlines())) <= 100


def test_every_setting_is_printed_with_what_it_is() -> None:
    text = printed()
    for place, description in fields(DistillConfig):
        assert description.endswith("."), place
        assert f" {place.rpartition('.')[2]}:" in f" {text}".replace("\n", " "), place
    assert "τ_ZPD of Eq. 8." in printed("organizer")
    with pytest.raises(InputError, match="no section 'tau_zpd'; there are retention"):
        find_section(DistillConfig, "organizer.tau_zpd")


def test_off_is_a_word_in_files_and_on_a_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "organizer: {gate: off, zone: false, retention: {kind: off}}\n"
        "diagnose: {gate_probe_share: 0}\nadapter: {verification: {on: false}}\n"
    )
    found = read_settings(MethodConfig, path, ["train.clip=0.5"])
    organizer = found.organizer
    assert (organizer.gate, organizer.zone, organizer.retention.kind) == ("off", False, "off")
    assert not found.adapter.verification.on
    assert read_settings(MethodConfig, None, ["organizer.gate=off"]).organizer.gate == "off"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lr=1", "setting 'train.lr': there is none of this name"),
        ("adapter.verification.on=false", "settings: adapter.verification.on=false: probes"),
        ("adapter.zone={low: 2, high: 1}", "settings: setting 'adapter.zone': low=2.0 has to be"),
        ("organizer.gate=hard", "setting 'organizer.gate': Input should be 'posterior'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_paid(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_settings(MethodConfig, None, [override])
