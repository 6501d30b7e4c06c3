"""The operator's client of the off-site repository, with scripts in place of restic and a local storage server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploys.offsite import restic
from deploys.offsite.restic import DROPLET, OPERATOR, Repository, RepositoryError
from tests.support.manifests import NOON
from tests.support.settings import settings_of


def program(directory: Path, text: str) -> None:
    """Install a script as restic."""
    path = directory / "restic"
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    settings = settings_of("prod")
    secrets = {name: f"secret {name}" for name in settings.credentials.offsite}
    return Repository("s3:https://s3.test/bucket", "bot", secrets, ())


def test_restic_gets_the_operator_s_key_and_no_secret_as_an_argument(ours: Repository, tmp_path: Path) -> None:
    program(tmp_path, 'echo "$* $AWS_ACCESS_KEY_ID $AWS_SECRET_ACCESS_KEY $RESTIC_PASSWORD $RESTIC_REPOSITORY"')
    keys = "secret OFFSITE_OPERATOR_KEY_ID secret OFFSITE_OPERATOR_KEY_SECRET"
    assert ours.restic("check") == f"check {keys} secret OFFSITE_OPERATOR_PASSWORD s3:https://s3.test/bucket\n"
    assert ours.restic("check", opened_by=DROPLET).split(" secret ")[3].startswith("OFFSITE_PASSWORD s3")


def test_a_password_is_handed_over_by_a_pipe(ours: Repository, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    program(tmp_path, f'echo "$*" > {seen}; cat "${{!#}}" >> {seen}')
    ours.add_key(DROPLET, opened_by=OPERATOR)
    arguments, password = seen.read_text().splitlines()
    assert password == "secret OFFSITE_PASSWORD"
    assert arguments.startswith("key add --user offsite --host bot --new-password-file /dev/stdin")


@pytest.mark.parametrize(
    ("code", "said", "opens"),
    [(0, "", True), (12, "Fatal: x", False), (1, "Fatal: wrong password or no key found", False)],
)
def test_restic_of_any_version_tells_of_a_wrong_password(
    ours: Repository, tmp_path: Path, code: int, said: str, *, opens: bool
) -> None:
    program(tmp_path, f"echo '{said}' >&2; exit {code}")
    assert ours.opens(DROPLET) == opens


def test_any_other_failure_is_reported(ours: Repository, tmp_path: Path) -> None:
    program(tmp_path, "echo 'Fatal: the sky fell' >&2; exit 1")
    for act in (lambda: ours.restic("check"), lambda: ours.opens(DROPLET)):
        with pytest.raises(RepositoryError, match="the sky fell"):
            act()


def test_output_that_is_not_utf_8_is_replaced(ours: Repository, tmp_path: Path) -> None:
    """An intruder with the droplet's key can send any bytes as a manifest."""
    program(tmp_path, r"printf '\xff{}'")
    assert ours.restic("dump", "x", "/y") == "\ufffd{}"


def test_a_manifest_without_an_end_is_one_line(ours: Repository, tmp_path: Path) -> None:
    program(tmp_path, "exec cat /dev/zero")
    with pytest.raises(RepositoryError, match="restic dump: restic printed more than 96 MiB"):
        ours.restic("dump", "x", "/y")


def test_a_locked_repository_names_its_holder(ours: Repository, tmp_path: Path) -> None:
    """The client reads both forms of restic's message about a lock, because restic 0.17 changed the message."""
    for said in ("unable to create lock in backend: repository is already", "Fatal: unable to create lock: already"):
        program(tmp_path, f"echo '{said} locked by PID 7 on bot\nuse unlock' >&2; exit 11")
        with pytest.raises(
            RepositoryError,
            match=r"already locked by PID 7 on bot\. Next: wait until the other restic run ends, or for half an hour",
        ):
            ours.restic("check")


def test_a_machine_without_restic_is_told_what_to_install(ours: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(
        RepositoryError, match=r"restic is not installed on this machine\. Next: apt-get install restic"
    ):
        ours.restic("check")


def test_restic_that_comes_to_no_end_is_stopped(ours: Repository, tmp_path: Path) -> None:
    program(tmp_path, "echo 'Load(x) returned error, retrying after 7s: no route to host' >&2; exec sleep 60")
    with pytest.raises(RepositoryError, match="restic check: no route to host"):
        ours.restic("check", timeout=0.5)


def test_a_file_is_hashed_as_it_comes(ours: Repository, tmp_path: Path) -> None:
    program(tmp_path, "printf 'abc'")
    found = ours.describe("x", "/y", 3)
    assert (found.bytes, found.sha256[:16]) == (3, "ba7816bf8f01cfea")


def test_a_file_that_can_t_be_read_is_told_with_restic_s_reason_and_nothing_else_is_shown(
    ours: Repository, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """An intruder may have written parts of restic's message. The caller makes the message printable."""
    program(tmp_path, r"printf 'abc'; printf 'Fatal: \x1b[2Jlost\n' >&2; exit 1")
    with pytest.raises(RepositoryError, match="/y of snapshot x can't be read: \x1b\\[2Jlost"):
        ours.describe("x", "/y", 3)
    assert capfd.readouterr() == ("", "")


def test_a_file_without_an_end_is_read_as_far_as_its_manifest_says(ours: Repository, tmp_path: Path) -> None:
    program(tmp_path, "exec cat /dev/zero")
    for most in (0, 7, 3 << 20):
        assert ours.describe("x", "/y", most).bytes == most + 1


def test_an_authority_of_one_s_own_is_trusted_besides_the_public_ones(ours: Repository, tmp_path: Path) -> None:
    program(tmp_path, 'echo "$*"')
    own = Repository(ours.url, ours.app, ours.secrets, ("/ca.crt",))
    assert own.restic("check") == f"--cacert={restic.certifi.where()} --cacert=/ca.crt check\n"


def test_an_environment_without_the_operator_s_secrets_names_what_is_missing() -> None:
    settings = settings_of("prod")
    assert Repository.of(settings).url == settings.values.offsite_repository
    with pytest.raises(RepositoryError, match="offsite_repository is None"):
        Repository.of(settings_of("prod", {"offsite_repository": None}))
    droplets = {name: "s" for name in settings.credentials.offsite if "OPERATOR" not in name}
    partial = settings_of("prod")
    object.__setattr__(partial.credentials, "offsite", droplets)
    with pytest.raises(RepositoryError, match=r"\.env\.production lacks OFFSITE_OPERATOR_KEY_ID, "):
        Repository.of(partial)


# --- without restic -----------------------------------------------------------------------------------------------


@contextmanager
def a_storage(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Run a storage that answers every request with `answer`. Yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def do_HEAD(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"s3:http://127.0.0.1:{server.server_port}/bucket"
    finally:
        server.shutdown()
        server.server_close()


def says(status: int, body: str = "", *, last_modified: str = "") -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        assert "Credential=secret OFFSITE" in handler.headers["authorization"]
        handler.send_response(status)
        if last_modified:
            handler.send_header("Last-Modified", last_modified)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body.encode())

    return answer


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (200, "", "there"),
        (404, "NoSuchKey", "none"),
        (403, "AccessDenied", "the storage refuses OFFSITE_OPERATOR_KEY_ID and OFFSITE_OPERATOR_KEY_SECRET of the env"),
        (500, "InternalError", r"the storage returned an error \(500 InternalError\)"),
        (503, "SlowDown", r"the storage returned an error \(503 SlowDown\)"),
    ],
)
def test_whether_there_is_a_repository_is_asked_past_restic(
    ours: Repository, status: int, code: str, outcome: str
) -> None:
    with a_storage(says(status, f"<Error><Code>{code}</Code></Error>" if code else "")) as url:
        apart = replace(ours, url=url)
        if outcome in {"there", "none"}:
            assert apart.exists(OPERATOR) == (outcome == "there")
            return
        with pytest.raises(RepositoryError, match=outcome):
            apart.exists(OPERATOR)


def breaks_off(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(503)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b"<Error>")


def speaks_no_http(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"220 ready\r\n")


@pytest.mark.parametrize(
    ("answer", "told"), [(breaks_off, "storage returned an error"), (speaks_no_http, "the storage can't be reached")]
)
def test_a_storage_that_answers_nonsense_is_one_line(
    ours: Repository, answer: Callable[[BaseHTTPRequestHandler], None], told: str
) -> None:
    with a_storage(answer) as url, pytest.raises(RepositoryError, match=told):
        replace(ours, url=url).exists(OPERATOR)


def test_a_storage_that_cannot_be_reached_is_reported(ours: Repository) -> None:
    with a_storage(says(200)) as url:
        pass
    with pytest.raises(RepositoryError, match="the storage can't be reached"):
        replace(ours, url=url).exists(OPERATOR)
    with pytest.raises(RepositoryError, match="the storage can't be reached"):
        replace(ours, url=url).stored_at("a" * 64)


def test_a_snapshot_s_date_is_the_storage_s(ours: Repository) -> None:
    with a_storage(says(200, last_modified="Sun, 23 Nov 2025 12:00:07 GMT")) as url:
        assert replace(ours, url=url).stored_at("a" * 64) == NOON + timedelta(seconds=7)


@pytest.mark.parametrize(
    ("status", "date"), [(404, ""), (403, "Sun, 23 Nov 2025 12:00:07 GMT"), (200, ""), (200, "yesterday")]
)
def test_a_snapshot_without_a_date_is_not_guessed_at(ours: Repository, status: int, date: str) -> None:
    with (
        a_storage(says(status, last_modified=date)) as url,
        pytest.raises(RepositoryError, match="the storage has no date for snapshot aaaa"),
    ):
        replace(ours, url=url).stored_at("a" * 64)
