"""The audit fails for the right complaints, and reads lynis's points correctly."""

from __future__ import annotations

import tomllib

from deploys.components import nginx
from tests.support.settings import settings_of
from tests.system.audit.judges import DIRECTIVES, Item, bad, index, items_of
from tests.system.audit.verdicts import WAIVERS, objections, waived, waivers

LOG = """\
2026-11-23 22:13:20 Performing test ID FIRE-4508 (Check used policies of iptables chains)
2026-11-23 22:13:20 Hardening: assigned maximum number of hardening points for this item (3). Currently having 89 points (out of 121)
2026-11-23 22:13:24 Performing test ID USB-3000 (Check for presence of USBGuard)
2026-11-23 22:13:24 Result: USBGuard not found
2026-11-23 22:13:24 Hardening: assigned partial number of hardening points (0 of 8). Currently having 86 points (out of 126)
2026-11-23 22:13:24 Performing test ID SSH-7408 (Check SSH specific defined options)
2026-11-23 22:13:24 Result: Option MaxAuthTries found
2026-11-23 22:13:24 Hardening: assigned partial number of hardening points (1 of 3). Currently having 87 points (out of 129)
2026-11-23 22:13:24 Result: Option LogLevel found
2026-11-23 22:13:24 Hardening: assigned maximum number of hardening points for this item (3). Currently having 90 points (out of 132)
2026-11-23 22:13:24 Performing test ID FILE-6374 (Linux mount options)
2026-11-23 22:13:24 File system:    /dev/shm
2026-11-23 22:13:24 Hardening: assigned partial number of hardening points (4 of 5). Currently having 94 points (out of 137)
"""  # noqa: E501 - as lynis writes it


def test_a_complaint_that_is_not_waived_is_an_objection() -> None:
    assert objections({"b", "a"}, {"b"}) == ["a"]


def test_an_unneeded_waiver_is_an_objection() -> None:
    assert objections({"a"}, {"a", "b"}) == ["b: waived without need, take it out of waivers.toml"]


def test_waived_complaints_are_no_objection() -> None:
    assert objections({"a"}, {"a"}) == []


def test_a_waiver_for_the_lab_does_not_apply_to_a_droplet() -> None:
    assert "5.1" in waived("CIS Docker", "lab")
    assert "5.1" not in waived("CIS Docker", "prod")
    assert "5.14" in waived("CIS Docker", "prod")


def test_each_waiver_is_unique_and_has_its_reason() -> None:
    names = [(one.judge, one.id) for one in waivers()]
    assert len(names) == len({*names})
    assert all(len(one.reason.split()) >= 4 for one in waivers())


def test_a_choice_is_told_from_what_a_machine_cannot_show() -> None:
    found = tomllib.loads(WAIVERS.read_text())
    assert {name for one in found["unseen"] for name in one["only"]} <= {"lab", "vm", "staging", "prod"}
    assert not any("only" in one for one in found["choice"])


def test_lynis_s_waived_index_takes_out_only_what_the_machine_cannot_show() -> None:
    assert not [one.id for one in waivers() if one.judge == "lynis" and not one.only]


def test_nginx_s_baseline_complains_of_what_is_waived_and_of_nothing_else() -> None:
    text = nginx.configuration(settings_of("prod")).decode()
    complained = {number for number, lacks in DIRECTIVES.items() if lacks(text)}
    assert complained == waived("dev-sec nginx-baseline", "prod")


def test_points_are_each_setting_s_and_those_of_a_subshell_are_lost() -> None:
    assert items_of(LOG) == [
        Item("USB-3000", 0, 8),
        Item("SSH-7408:MaxAuthTries", 1, 3),
        Item("SSH-7408:LogLevel", 3, 3),
        Item("FILE-6374:/dev/shm", 4, 5),
    ]
    assert index(items_of(LOG)) == 8 * 100 // 19


def test_an_algorithm_is_bad_when_it_is_warned_of() -> None:
    assert bad({"algorithm": "a", "notes": {"warn": ["weak"], "info": ["old"]}})
    assert bad({"algorithm": "a", "notes": {"fail": ["broken"]}})
    assert not bad({"algorithm": "a", "notes": {"info": ["since 6.5"]}})
