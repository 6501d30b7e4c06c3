"""CI gives its request an ID and follows the run with this ID."""

import json
from pathlib import Path

import pytest

from tests.support.fakes.droplet import installed, stackctl

ID, ANOTHER = "0123456789abcdef" * 2, "f" * 32


@pytest.mark.parametrize("verb", [("release", "9.9.9"), ("rollback",)])
def test_a_request_with_an_id_starts_one_run_and_is_followed_by_its_id(tmp_path: Path, verb: tuple[str, ...]) -> None:
    droplet = installed(tmp_path)
    code, shown = stackctl(droplet, *verb, "--json", "--id", ID)
    first = json.loads(shown.splitlines()[0])
    assert (code, first["request"]) == (2, ID)
    assert stackctl(droplet, *verb, "--json", "--id", ID) == (code, shown)
    assert stackctl(droplet, "release", "--follow", "--json", "--id", ID) == (code, shown)
    (run,) = json.loads(stackctl(droplet, "history", "--json")[1])
    assert (run["run"], run["request"]) == (first["run"], ID)
    assert stackctl(droplet, *verb, "--id", ANOTHER)[0] == code
    assert [one["request"] for one in json.loads(stackctl(droplet, "history", "--json")[1])] == [ID, ANOTHER]


def test_a_request_that_started_nothing_is_not_followed(tmp_path: Path) -> None:
    """CI does not follow another run if its own request started none."""
    droplet = installed(tmp_path)
    assert stackctl(droplet, "release", "1.0.0")[0] == 0
    code, shown = stackctl(droplet, "release", "--follow", "--id", ID)
    assert (code, shown.splitlines()) == (
        2,
        [f"stackctl release: no run has the ID {ID}, so that request started nothing. Next: send the request again"],
    )


@pytest.mark.parametrize("request_id", ["", "x", ID.upper(), f"{ID}0", f"{ID[1:]}\n"])
def test_an_id_of_another_form_is_refused(tmp_path: Path, request_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        stackctl(installed(tmp_path), "release", "1.0.0", "--id", request_id)
    assert ended.value.code == 2
    assert "argument --id: ID must be 32 hexadecimal digits (0-9, a-f)" in capsys.readouterr().err
