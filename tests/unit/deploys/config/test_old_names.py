"""Old names of values work for one version and are announced. An old and a new name together are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploys.config import environments, settings
from deploys.config.settings import check_values
from deploys.config.values import SettingsError, Values
from stackctl.core.old_names import OLD_NAMES_END
from tests.support.settings import ROOT, data_of

TRUSTED = ["192.0.2.7/32"]
NOTE = f"`never_banned` is now called `trusted_addresses`. The old name works until version {OLD_NAMES_END}\n"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a group_data directory with the defaults of this checkout."""
    folder = tmp_path / "group_data"
    folder.mkdir()
    (folder / "all.py").write_text((ROOT / "group_data/all.py").read_text())
    (folder / "prod.py").write_text(
        "\n".join(
            f"{name} = {value!r}"
            for name, value in data_of("prod").items()
            if name not in environments.group_data("all")
        )
        + "\n"
    )
    monkeypatch.setattr(environments, "_ROOT", tmp_path)
    settings._announce.cache_clear()
    return folder


def add(file: Path, name: str, value: list[str]) -> None:
    file.write_text(f"{file.read_text()}{name} = {value!r}\n")


def test_an_old_name_replaces_the_default_and_is_announced_once(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(files / "prod.py", "never_banned", TRUSTED)
    environments.check()
    values = [check_values(environments.group_data("prod")) for _host in range(2)]
    assert [[*map(str, one.trusted_addresses)] for one in values] == [TRUSTED] * 2
    assert capsys.readouterr().err == f"group_data/prod.py: {NOTE}"


def test_an_old_name_in_all_py_counts(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rename_the_default(files)
    assert [*map(str, check_values(environments.group_data("prod")).trusted_addresses)] == TRUSTED
    assert capsys.readouterr().err == f"group_data/all.py: {NOTE}"


def test_an_old_name_as_data_of_pyinfra_counts(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = check_values({**environments.group_data("prod"), "never_banned": TRUSTED})
    assert [*map(str, values.trusted_addresses)] == TRUSTED
    assert capsys.readouterr().err == f"inventory or --data: {NOTE}"


def test_a_present_name_is_not_announced(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(files / "prod.py", "trusted_addresses", TRUSTED)
    assert [*map(str, check_values(environments.group_data("prod")).trusted_addresses)] == TRUSTED
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("value", [[], TRUSTED])
def test_both_names_in_one_file_are_refused(files: Path, value: list[str]) -> None:
    add(files / "prod.py", "never_banned", TRUSTED)
    add(files / "prod.py", "trusted_addresses", value)
    message = "group_data/prod.py sets both never_banned and its new name trusted_addresses. Nothing was changed"
    for look in (environments.check, lambda: environments.group_data("prod")):
        with pytest.raises(environments.GroupDataError, match=re.escape(message)):
            look()


def test_the_old_name_in_one_file_and_the_new_one_in_another_are_refused(files: Path) -> None:
    rename_the_default(files)
    add(files / "prod.py", "trusted_addresses", [])
    message = (
        "group_data: never_banned (group_data/all.py) is the old name of trusted_addresses (group_data/prod.py), and "
        "both are set. Nothing was changed. Next: keep only trusted_addresses"
    )
    with pytest.raises(SettingsError, match=re.escape(message)):
        check_values(environments.group_data("prod"))


def test_no_old_name_stands_in_this_checkout_and_each_is_in_the_changelog() -> None:
    deprecated = (ROOT / "CHANGELOG.md").read_text().partition("### Deprecated")[2].partition("\n### ")[0]
    for old, new in environments.RENAMED.items():
        assert not any(old in environments.group_data(name) for name in ("lab", "staging", "prod"))
        assert old not in Values.model_fields
        assert new in Values.model_fields
        assert f"The value `{old}` of group_data is now called `{new}`" in deprecated


def rename_the_default(files: Path) -> None:
    text = (files / "all.py").read_text()
    declared = "trusted_addresses: list[str] = []"
    assert declared in text
    (files / "all.py").write_text(text.replace(declared, f"never_banned = {TRUSTED}"))
