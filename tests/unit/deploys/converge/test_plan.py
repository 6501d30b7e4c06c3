"""`make plan` ends with a summary, and can print JSON."""

import json
from pathlib import Path

import pytest

from deploys.converge import plan
from deploys.converge.plan import for_machines, summary


def operation(name: str, *hosts: str) -> dict[str, object]:
    return {"name": name, "hosts_with_change": list(hosts)}


def test_nothing_to_do() -> None:
    assert summary([operation("a")], {}).strip() == "0 hosts would change (1 operations looked at)."
    assert json.loads(for_machines([operation("a")], {})) == {"hosts": {}, "changed": 0, "foreign": {}}


def test_hosts_are_counted_and_their_operations_named() -> None:
    text = summary([operation("a", "one", "two"), operation("b"), operation("c", "two")], {})
    assert "two would change:\n  - a\n  - c\n" in text
    assert text.strip().endswith("2 hosts would change (3 operations looked at).")


def test_a_machine_gets_one_line() -> None:
    line = for_machines([operation("c", "two"), operation("a", "one", "two"), operation("b")], {})
    assert json.loads(line) == {"hosts": {"one": ["a"], "two": ["c", "a"]}, "changed": 2, "foreign": {}}
    assert line.count("\n") == 1


FOUND = {"name": "/etc/cron.d/x", "what": "cron runs it", "next": "make site REMOVE=/etc/cron.d/x"}


def test_a_plan_ends_with_the_foreign_findings() -> None:
    found = {"one": [FOUND], "two": []}
    *_, heading, line, _, last = summary([operation("a")], found).strip().split("\n")
    assert heading == "one has foreign findings:"
    assert line == "  - /etc/cron.d/x: cron runs it. Next: make site REMOVE=/etc/cron.d/x"
    assert last.startswith("0 hosts would change")
    told = json.loads(for_machines([operation("a")], found))["foreign"]
    assert told == {"one": ["/etc/cron.d/x: cron runs it. Next: make site REMOVE=/etc/cron.d/x"]}


def test_a_plan_is_told_of_what_is_foreign_by_pyinfra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = json.dumps({"one": [FOUND]})
    pyinfra = tmp_path / "python"
    answer = '{"plan": [{"name": "a", "hosts_with_change": []}]}'
    pyinfra.write_text(f"#!/bin/sh\nprintf '%s' '{listed}' >\"$FOREIGN_LIST\"\necho '{answer}'\n")
    pyinfra.chmod(0o755)
    monkeypatch.setattr(plan.sys, "executable", str(pyinfra))
    monkeypatch.setattr(plan.sys, "argv", ["plan", "inventories/lab.py"])
    assert plan.main() == 0
    assert "one has foreign findings:\n  - /etc/cron.d/x: cron runs it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ('echo \'{"plan": [{"name": "a", "hosts_with_change": ["one"]}]}\'', 0),
        ('echo \'{"plan": [{"name": "a", "hosts_with_change": []}]}\'', 0),
        ("echo '{\"plan\": []}'", 1),
        ("exit 5", 5),
    ],
)
def test_only_a_plan_that_could_not_be_made_fails(
    answer: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Use a stand-in for the program pyinfra."""
    pyinfra = tmp_path / "python"
    pyinfra.write_text(f"#!/bin/sh\n{answer}\n")
    pyinfra.chmod(0o755)
    monkeypatch.setattr(plan.sys, "executable", str(pyinfra))
    monkeypatch.setattr(plan.sys, "argv", ["plan", "inventories/lab.py", "--json"])
    assert plan.main() == code
    assert bool(capsys.readouterr().out) == (code == 0)
