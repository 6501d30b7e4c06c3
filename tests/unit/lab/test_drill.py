"""`make drill` reports its findings, and succeeds only if all data is back and Telegram got the right calls."""

import re
from collections import Counter
from dataclasses import replace

import pytest

from tests.lab.drill import Clock, Outcome, Rows, table
from tests.lab.host import LabError

STEPS = [("back it up", 80.0), ("destroy droplet1", 2.0), ("restore", 40.4)]
BEFORE = {"offers": Counter(["bread", "soup", "soup"]), "jobs": Counter(["notify"]), "orders": Counter[str]()}
WELL = Outcome(
    before=BEFORE,
    since={"offers": Counter(["cake"]), "jobs": Counter(), "orders": Counter(["first", "second"])},
    found=BEFORE,
    key="4f1c",
    found_key="4f1c",
    while_isolated=[],
    in_all=["setWebhook", "sendMessage"],
)


def told(seen: Outcome) -> list[str]:
    return table(Clock(STEPS), "destroy droplet1", seen)


def test_a_complete_restore_is_reported_with_the_rows_lost_since_the_backup() -> None:
    WELL.judge()
    assert told(WELL)[-5:] == [
        "recovery time, from the loss to the first update: 42 s",
        "rows equal to the backup: all 4 in 3 tables",
        "rows lost, written after the backup: 1 of offers, 2 of orders",
        "Redis's key equal to the backup: yes",
        "calls to Telegram while isolated: none",
    ]


def test_each_step_is_listed_with_its_seconds() -> None:
    assert [line.split()[-1] for line in told(WELL)[2:5]] == ["80.0", "2.0", "40.4"]


def test_a_restored_row_that_was_written_later_is_not_called_lost() -> None:
    assert replace(WELL, found=BEFORE | {"offers": BEFORE["offers"] + Counter(["cake"])}).lost == {"orders": 2}
    assert told(replace(WELL, since={}))[-3] == "rows lost, written after the backup: none"


def test_a_lost_row_counts_even_if_an_equal_row_is_there() -> None:
    assert replace(WELL, since={"offers": Counter(["soup"])}).lost == {"offers": 1}


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        (BEFORE | {"offers": Counter(["soup", "soup"])}, {"offers": 1}),
        (BEFORE | {"offers": Counter(["bread", "soup"])}, {"offers": 1}),
        (BEFORE | {"offers": Counter(["bread", "soup", "stale soup"])}, {"offers": 2}),
        (BEFORE | {"jobs": Counter(["notify", "notify again"])}, {"jobs": 1}),
        (BEFORE | {"jobs": Counter(["notify", "notify"])}, {"jobs": 1}),
        ({name: rows for name, rows in BEFORE.items() if name != "orders"}, {"orders": 0}),
        (BEFORE | {"another": Counter(["row"])}, {"another": 1}),
        ({}, {"jobs": 1, "offers": 3, "orders": 0}),
    ],
    ids=[
        *("a row missing", "one of two equal rows missing", "a row changed", "a row added", "a row twice"),
        *("an empty table missing", "a table added", "nothing"),
    ],
)
def test_rows_that_differ_are_counted_by_table(found: Rows, wrong: dict[str, int]) -> None:
    seen = replace(WELL, found=found)
    with pytest.raises(LabError, match=re.escape(f"The restored rows differ from the backup's rows: {wrong}")):
        seen.judge()
    assert "rows equal to the backup: not all 4 in 3 tables" in told(seen)


def test_a_key_that_differs_is_reported() -> None:
    seen = replace(WELL, found_key="")
    with pytest.raises(LabError, match="Redis's key drill was '4f1c' at the backup and is now ''"):
        seen.judge()
    assert "Redis's key equal to the backup: no" in told(seen)


def test_a_call_of_the_isolated_droplet_is_reported() -> None:
    seen = replace(WELL, while_isolated=["getWebhookInfo"])
    with pytest.raises(LabError, match="The isolated droplet called Telegram: getWebhookInfo"):
        seen.judge()
    assert told(seen)[-1] == "calls to Telegram while isolated: getWebhookInfo"


@pytest.mark.parametrize(
    ("in_all", "unheard"),
    [([], "sendMessage, setWebhook"), (["setWebhook"], "sendMessage"), (["sendMessage"], "setWebhook")],
)
def test_the_silence_of_a_telegram_that_hears_nothing_proves_nothing(in_all: list[str], unheard: str) -> None:
    with pytest.raises(LabError, match=f"The promoted droplet did not call Telegram's {unheard}, "):
        replace(WELL, in_all=in_all).judge()
