"""What `make drill` says of what it saw, and that it ends well only when all is there."""

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
    of_the_copy=[],
    in_all=["setWebhook", "sendMessage"],
)


def told(seen: Outcome) -> list[str]:
    return table(Clock(STEPS), "destroy droplet1", seen)


def test_all_is_there_and_what_was_lost_is_told() -> None:
    WELL.judge()
    assert told(WELL)[-5:] == [
        "recovery, from the loss to the first update: 42 s",
        "rows as they were at the backup: all 4 of 3 tables",
        "lost, what was written after it: 1 of offers, 2 of orders",
        "Redis's key as it was at the backup: yes",
        "Telegram heard of the copy: nothing",
    ]


def test_each_step_has_its_seconds() -> None:
    assert [line.split()[-1] for line in told(WELL)[2:5]] == ["80.0", "2.0", "40.4"]


def test_what_came_back_though_it_was_written_later_is_not_called_lost() -> None:
    assert replace(WELL, found=BEFORE | {"offers": BEFORE["offers"] + Counter(["cake"])}).lost == {"orders": 2}
    assert told(replace(WELL, since={}))[-3] == "lost, what was written after it: nothing"


def test_one_more_that_is_equal_to_a_row_that_is_there_is_lost_as_any_other() -> None:
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
        *("a row less", "one of two that are equal less", "a row changed", "a row more", "a row twice"),
        *("an empty table less", "a table more", "nothing"),
    ],
)
def test_rows_that_differ_are_counted_by_table(found: Rows, wrong: dict[str, int]) -> None:
    seen = replace(WELL, found=found)
    with pytest.raises(LabError, match=re.escape(f"rows differ from what was backed up: {wrong}")):
        seen.judge()
    assert "rows as they were at the backup: not all 4 of 3 tables" in told(seen)


def test_a_key_that_differs_is_told() -> None:
    seen = replace(WELL, found_key="")
    with pytest.raises(LabError, match="Redis's drill was '4f1c' when it was backed up, and is ''"):
        seen.judge()
    assert "Redis's key as it was at the backup: no" in told(seen)


def test_a_copy_that_was_heard_is_told() -> None:
    seen = replace(WELL, of_the_copy=["getWebhookInfo"])
    with pytest.raises(LabError, match="the copy was to keep silent, and Telegram heard getWebhookInfo"):
        seen.judge()
    assert told(seen)[-1] == "Telegram heard of the copy: getWebhookInfo"


@pytest.mark.parametrize(
    ("in_all", "unheard"),
    [([], "sendMessage, setWebhook"), (["setWebhook"], "sendMessage"), (["sendMessage"], "setWebhook")],
)
def test_a_silence_of_a_telegram_that_hears_nothing_proves_nothing(in_all: list[str], unheard: str) -> None:
    with pytest.raises(LabError, match=f"of the live one it heard no {unheard}"):
        replace(WELL, in_all=in_all).judge()
