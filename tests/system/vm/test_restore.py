"""The power fails during a restore. Afterwards, the data is entirely the former data or entirely the backup's data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from stackctl.restore.restore import RESTORE
from tests.support.data import backups, live_database
from tests.support.environment import Environment
from tests.system.vm.machine import Run, connect, cut_power, wait_until_well

OFFERS = "SELECT md5(string_agg(one::text, '|' ORDER BY id)) FROM offers one"


@dataclass(frozen=True)
class Then:
    """The data at the time of the backup."""

    id: str
    offers: str


@pytest.fixture(scope="module")
def then(vm: Environment) -> Then:
    host = connect(vm)
    live_database(vm, host).ask(
        "INSERT INTO offers (title, price_cents, seller) SELECT 'Bread '||n, n, n FROM generate_series(1, 50) n"
    )
    vm.ask_redis(host, "set restored then")
    host.check_output("stackctl backup")
    return Then(backups(host)[-1]["id"], live_database(vm, host).ask(OFFERS))


@pytest.mark.parametrize("step", [step.name for step in RESTORE])
def test_a_power_cut_during_a_restore_leaves_the_former_data_or_the_backup_s(
    vm: Environment, then: Then, show: Callable[[str], None], step: str
) -> None:
    host = connect(vm)
    live_database(vm, host).ask("INSERT INTO offers (title, price_cents, seller) VALUES ('Made since', 1, 1)")
    vm.ask_redis(host, "set restored now")
    vm.ask_redis(host, "save")  # a killed Redis loses changes that it has not saved
    now = live_database(vm, host).ask(OFFERS)
    asked = Run(("restore", then.id, "--yes", then.id))
    asked.reach(step)
    cut_power()
    asked.abandon()
    host = wait_until_well(vm)
    found = live_database(vm, host).ask(OFFERS), vm.ask_redis(host, "get restored")
    show(f"power cut at {step}: {'the former data' if found[1] == 'now' else 'the data of the backup'}")
    assert found in {(then.offers, "then"), (now, "now")}
    assert live_database(vm, host).ask("SELECT count(*) FROM pg_database") == "4"
    answer = vm.ask_as_telegram(f"https://{vm.settings.values.domain}/webhook/telegram", "--request POST")
    assert answer.split()[1] == "401", "the bot did not answer"
