"""The last lines of `make plan`."""

from deploys.plan import summary


def operation(name: str, *hosts: str) -> dict[str, object]:
    return {"name": name, "hosts_with_change": list(hosts)}


def test_nothing_to_do() -> None:
    assert summary([operation("a")]).strip() == "0 hosts would change (1 operations looked at)."


def test_hosts_are_counted_and_their_operations_named() -> None:
    text = summary([operation("a", "one", "two"), operation("b"), operation("c", "two")])
    assert "two would change:\n  - a\n  - c\n" in text
    assert text.strip().endswith("2 hosts would change (3 operations looked at).")
