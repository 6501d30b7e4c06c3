"""Numbered jobs are inserted while ten releases run. No job is missed, and no two runs of jobs overlap."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest
from testinfra.host import Host

from tests.support.environment import ROOT, Environment

pytestmark = pytest.mark.group("app")

RELEASES = ("1.1.0", "1.0.0") * 5
EVERY_S = 0.05
PAUSE_MS = 30
"""The duration of a job. Usually a job is running when the worker is told to stop."""
DONE_WITHIN_S = 60

CLEAR = "DELETE FROM jobs WHERE kind = 'count'"
PREPARE = """
    PREPARE insert_job (int, int) AS INSERT INTO jobs (kind, payload)
    VALUES ('count', jsonb_build_object('number', $1, 'pause_ms', $2));
"""
LEFT = "SELECT count(*) FROM jobs WHERE kind = 'count' AND finished_at IS NULL"
RUNS = "SELECT payload->>'number' FROM job_runs JOIN jobs ON jobs.id = job_id WHERE kind = 'count'"
WORKERS = "SELECT count(DISTINCT worker) FROM job_runs JOIN jobs ON jobs.id = job_id WHERE kind = 'count'"
# Only one worker runs, so no run of a job may overlap another run.
OVERLAPPING_RUNS = """
    SELECT count(*) FROM (
        SELECT started_at, max(coalesce(job_runs.finished_at, 'infinity')) OVER (
            ORDER BY started_at, job_runs.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS busy_until
        FROM job_runs JOIN jobs ON jobs.id = job_id WHERE kind = 'count'
    ) AS runs
    WHERE started_at < busy_until
"""
# The job is marked as finished, so that no worker takes the job. The job has two runs, and the second run began before
# the first run ended.
INSERT_OVERLAPPING_RUNS = """
    WITH job AS (INSERT INTO jobs (kind, finished_at) VALUES ('count', now()) RETURNING id)
    INSERT INTO job_runs (job_id, worker, started_at, finished_at)
    SELECT id, 'nobody', began, ended
    FROM job, (VALUES (now() - interval '2 s', now()), (now() - interval '1 s', NULL)) AS run (began, ended)
"""

Query = Callable[[str], str]


@pytest.fixture
def query(lab: Environment, droplet: Host) -> Iterator[Query]:
    def query(statement: str) -> str:
        return lab.ask_app_tables(droplet, statement)

    query(CLEAR)
    yield query
    query(CLEAR)


@contextmanager
def inserting(env: Environment, host: str) -> Iterator[list[int]]:
    """Insert one numbered job after another in one session. Yield the numbers of the inserted jobs."""
    command = ["ssh", "-F", env.data["ssh_config_file"], host, f"sudo {env.psql}"]
    session = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, text=True)
    numbers: list[int] = []
    stop = threading.Event()

    def insert() -> None:
        assert session.stdin
        session.stdin.write(PREPARE)
        for number in count():
            if stop.wait(EVERY_S):
                return
            session.stdin.write(f"EXECUTE insert_job ({number}, {PAUSE_MS});\n")
            session.stdin.flush()
            numbers.append(number)

    thread = threading.Thread(target=insert)
    thread.start()
    try:
        yield numbers
    finally:
        stop.set()
        thread.join()
        session.communicate()
    assert session.returncode == 0


def test_no_job_is_missed_and_none_runs_twice_at_once(lab: Environment, droplet: Host, query: Query) -> None:
    with inserting(lab, "droplet1") as numbers:
        for tag in RELEASES:
            droplet.check_output(f"stackctl release {tag}")
    deadline = time.monotonic() + DONE_WITHIN_S
    while query(LEFT) != "0":
        assert time.monotonic() < deadline, "some jobs are not finished"
        time.sleep(1)
    inserted, run = [str(number) for number in numbers], query(RUNS).split()
    assert len(inserted) > 1000
    assert {*run} == {*inserted}
    assert len(run) == len(inserted), "a job ran twice, because a worker did not finish its job before it stopped"
    assert query(OVERLAPPING_RUNS) == "0"
    assert int(query(WORKERS)) >= len(RELEASES)


def test_two_runs_at_once_would_be_noticed(query: Query) -> None:
    """Control for the test above: the query finds overlapping runs."""
    query(INSERT_OVERLAPPING_RUNS)
    assert query(OVERLAPPING_RUNS) == "1"
