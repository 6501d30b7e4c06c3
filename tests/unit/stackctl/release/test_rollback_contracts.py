"""stackctl refuses a rollback or a release past a contract migration."""

from pathlib import Path

import pytest

from stackctl.app import schema, state
from stackctl.app.state import Revision
from stackctl.core.errors import FailedError
from tests.support.fakes.droplet import Droplet, stackctl
from tests.support.releases import released_twice, tag


@pytest.fixture
def live(tmp_path: Path) -> Droplet:
    return released_twice(tmp_path)


def test_past_an_expand_it_may(live: Droplet) -> None:
    assert stackctl(live, "release", "1.2.0")[0] == 0
    assert state.load(live.paths).revisions == (Revision("0001", "expand"), Revision("0002", "expand"))
    assert stackctl(live, "rollback")[0] == 0


def test_a_contract_is_refused_while_its_expand_is_pending_too(live: Droplet) -> None:
    code, shown = stackctl(live, "release", "1.3.0")
    assert code == 2
    assert "0003 is a contract, and 1.1.0 is older than the expand before it" in shown
    assert (tag(live), live.postgres.schema) == ("1.1.0", "0001")


def test_past_a_contract_it_is_refused_with_the_reason(live: Droplet) -> None:
    for version in ("1.2.0", "1.3.0"):
        assert stackctl(live, "release", version)[0] == 0
    assert stackctl(live, "rollback", "1.2.0")[0] == 0
    code, shown = stackctl(live, "rollback", "1.1.0")
    assert code == 2
    assert "1.1.0 cannot work with the database: the later revision 0003 is a contract" in shown
    assert tag(live) == "1.2.0"


def test_a_migration_of_a_release_that_was_undone_counts(live: Droplet) -> None:
    assert stackctl(live, "release", "1.2.0")[0] == 0
    live.app = {"ready": 200, "update": 500}
    assert stackctl(live, "release", "1.3.0")[0] == 1
    live.app = {"ready": 200}
    assert stackctl(live, "rollback", "1.1.0")[0] == 2


def test_no_contract_comes_to_a_live_release_that_is_older_than_its_expand(live: Droplet) -> None:
    """No `contract` is applied while the live release is older than its `expand`, for example after a rollback."""
    assert stackctl(live, "release", "1.2.0")[0] == 0
    assert stackctl(live, "rollback")[0] == 0
    code, shown = stackctl(live, "release", "1.3.0")
    assert (code, live.postgres.schema) == (2, "0002"), shown
    assert "0003 is a contract, and 1.1.0 is older than the expand before it" in shown


def test_an_old_tag_is_not_released_onto_a_schema_that_it_cannot_serve(live: Droplet) -> None:
    for version in ("1.2.0", "1.3.0"):
        assert stackctl(live, "release", version)[0] == 0
    code, shown = stackctl(live, "release", "1.1.0")
    assert code == 2
    assert "the later revision 0003 is a contract" in shown


@pytest.mark.parametrize("end", [FailedError("exit 1"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_contract_that_came_to_no_end_bars_nothing(
    live: Droplet, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    """A contract that failed, was stopped or met a full disk was not applied, so it prevents no rollback."""

    def ends(*_arguments: object) -> None:
        raise end

    assert stackctl(live, "release", "1.2.0")[0] == 0
    monkeypatch.setattr(schema, "migrate", ends)
    assert stackctl(live, "release", "1.3.0")[0] == 1
    assert [one.revision for one in state.load(live.paths).revisions] == ["0001", "0002"]
    assert stackctl(live, "rollback", "1.1.0")[0] == 0


def test_a_contract_of_a_release_that_failed_later_is_not_forgotten(live: Droplet) -> None:
    assert stackctl(live, "release", "1.2.0")[0] == 0
    live.app = {"ready": 503}
    assert stackctl(live, "release", "1.3.0")[0] == 1
    assert [one.revision for one in state.load(live.paths).revisions] == ["0001", "0002", "0003"]
