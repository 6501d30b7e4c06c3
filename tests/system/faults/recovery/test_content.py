"""A backup holds the database's content at one moment, while four sellers keep trading.

Each seller's trades are numbered and generated from a seed. A restored database contains each seller's first trades, up
to some number. The restored database must equal an empty database after exactly these trades. It must also contain
every trade that PostgreSQL had confirmed before the backup began.
"""
# ruff: noqa: S608

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import pytest
from testinfra.host import Host

from tests.support.data import Database, backups, proven
from tests.support.environment import ROOT, Environment

pytestmark = pytest.mark.group("data")

SEEDS = (1, 2, 3)
SELLERS = 4
TABLES = {"sellers": "id", "offers": "id", "orders": "seller, id", "trades": "seller, number"}
SCHEMA = """
CREATE SCHEMA market;
CREATE TYPE market.state AS ENUM ('open', 'sold out', 'withdrawn');
CREATE TABLE market.sellers (id int PRIMARY KEY, name text NOT NULL UNIQUE, balance numeric(14, 2) NOT NULL);
CREATE TABLE market.offers (
    id bigint PRIMARY KEY, seller int NOT NULL REFERENCES market.sellers, title text NOT NULL, tags text[],
    price numeric(12, 2) CHECK (price >= 0), stock int NOT NULL, state market.state NOT NULL,
    extra jsonb, picture bytea, place point, until timestamptz, search tsvector GENERATED ALWAYS AS
    (to_tsvector('simple', title)) STORED
);
CREATE INDEX ON market.offers USING gin (search);
CREATE INDEX ON market.offers (seller, state) WHERE stock > 0;
CREATE TABLE market.orders (
    seller int, id bigint, offer bigint REFERENCES market.offers ON DELETE SET NULL, amount int, paid numeric(14, 2),
    PRIMARY KEY (seller, id)
) PARTITION BY LIST (seller);
CREATE TABLE market.orders_even PARTITION OF market.orders FOR VALUES IN (0, 2);
CREATE TABLE market.orders_odd PARTITION OF market.orders FOR VALUES IN (1, 3);
CREATE TABLE market.trades (seller int, number int, PRIMARY KEY (seller, number));
"""
CHARACTERS = "abc xyz äß€ 🥐 \t\n\\'\"$%|{}[],;:<>\x7f-"


def trades(seed: int, seller: int) -> Iterator[str]:
    """Generate a seller's trades, each as a transaction. The same seed gives the same trades. Sellers share no rows."""
    chance, offers, orders, number = random.Random(f"{seed} {seller}"), list[int](), 0, 0
    first = f"INSERT INTO market.sellers VALUES ({seller}, {_text(chance)} || {seller}, 0);"
    yield f"BEGIN; {first} {_done(seller, 0)} COMMIT;"
    while True:
        number += 1
        kind = chance.choice(["offer", "offer", "change", "order", "order", "withdraw"]) if offers else "offer"
        one = chance.choice(offers) if offers else 0
        if kind == "offer":
            one = number * SELLERS + seller
            offers.append(one)
            statement = f"INSERT INTO market.offers VALUES ({_offer(chance, one, seller)});"
        elif kind == "change":
            statement = f"UPDATE market.offers SET title = {_text(chance)}, stock = stock + 3 WHERE id = {one};"
        elif kind == "order":
            orders += 1
            paid = f"{chance.randrange(10**6) / 100:.2f}"
            statement = (
                f"INSERT INTO market.orders VALUES ({seller}, {orders}, {one}, {chance.randrange(9)}, {paid});"
                f"UPDATE market.offers SET stock = stock - 1 WHERE id = {one};"
                f"UPDATE market.sellers SET balance = balance + {paid} WHERE id = {seller};"
            )
        else:
            offers.remove(one)
            statement = f"DELETE FROM market.offers WHERE id = {one};"
        yield f"BEGIN; {statement} {_done(seller, number)} COMMIT;"


def _done(seller: int, number: int) -> str:
    return f"INSERT INTO market.trades VALUES ({seller}, {number});"


def _offer(chance: random.Random, one: int, seller: int) -> str:
    extra = {"size": chance.choice([None, 1.5, "XL", True]), _plain(chance): [_plain(chance)]}
    picture = chance.randbytes(chance.choice([0, 10, 5000])).hex()
    values = [
        *(str(one), str(seller), _text(chance)),
        chance.choice(["NULL", f"ARRAY[{_text(chance)}, NULL, {_text(chance)}]::text[]"]),
        f"{chance.randrange(10**8) / 100:.2f}",
        str(chance.randrange(100)),
        f"'{chance.choice(['open', 'sold out', 'withdrawn'])}'",
        _quoted(json.dumps(extra)) + "::jsonb",
        f"'\\x{picture}'::bytea",
        f"point({chance.uniform(-90, 90)!r}, {chance.uniform(-180, 180)!r})",
        chance.choice(["NULL", "'infinity'", f"to_timestamp({chance.uniform(0, 2e9)!r})"]),
    ]
    return ", ".join(values)


def _plain(chance: random.Random) -> str:
    return "".join(chance.choices(CHARACTERS, k=chance.randrange(1, 20)))


def _text(chance: random.Random) -> str:
    return _quoted(_plain(chance))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@dataclass
class Seller:
    """A client that trades over its own connection until it is stopped, and counts what PostgreSQL has confirmed."""

    psql: list[str]
    seed: int
    number: int
    confirmed: int = -1
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._process = subprocess.Popen(self.psql, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self._thread = threading.Thread(target=self._trade)
        self._thread.start()

    def _trade(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        for number, transaction in enumerate(trades(self.seed, self.number)):
            self._process.stdin.write(f"{transaction}\n\\echo done {number}\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            if line != f"done {number}\n":
                return  # `confirmed` then stays at its last value
            self.confirmed = number
            if self.stop.is_set():
                return

    def end(self) -> None:
        self.stop.set()
        self._thread.join()
        assert self._process.stdin
        self._process.stdin.close()
        assert self._process.wait() == 0


@pytest.fixture
def _market(droplet: Host, database: Database) -> Iterator[None]:
    def clear() -> None:
        database.ask("DROP SCHEMA IF EXISTS market CASCADE")
        for name in ("restored", "replayed"):
            database.ask(f"DROP DATABASE IF EXISTS {name}", "postgres")

    clear()
    database.ask(SCHEMA)
    before = proven(droplet)
    yield
    clear()
    # Remove the large backups, because the next backup would be reported as less than half of their size.
    for one in set(proven(droplet)) - set(before):
        droplet.check_output(f"rm -r /opt/backups/{one}")


@pytest.mark.usefixtures("_market")
@pytest.mark.parametrize("seed", SEEDS)
def test_restored_it_is_what_the_database_was_at_one_moment(
    lab: Environment, droplet: Host, database: Database, show: Callable[[str], None], seed: int
) -> None:
    sellers = [Seller(database.over_ssh(), seed, number) for number in range(SELLERS)]
    try:
        _until(lambda: min(one.confirmed for one in sellers) > 20)
        before = [one.confirmed for one in sellers]
        droplet.check_output("stackctl backup")
        after = [one.confirmed for one in sellers]
    finally:
        for one in sellers:
            one.end()
    assert all(later > sooner for sooner, later in zip(before, after, strict=True)), (
        "a seller did not trade during the backup"
    )

    *_, newest = backups(droplet)
    dump = lab.settings.paths.backup(newest["id"]) / "postgres.dump"
    database.create("restored")
    database.restore(dump, "restored")
    newest_trade = "SELECT max(number) FROM market.trades WHERE seller = {}"
    held = [int(database.ask(newest_trade.format(one), "restored")) for one in range(SELLERS)]
    show(f"seed {seed}: {before} confirmed before, {held} in the backup, {after} after it")
    assert all(sooner <= there for sooner, there in zip(before, held, strict=True)), (
        "the backup lacks a trade that was confirmed before it"
    )
    assert all(there < later for there, later in zip(held, after, strict=True)), (
        "the backup is not from a moment before the last trade"
    )

    database.create("replayed")
    replay = [SCHEMA]
    for seller, last in enumerate(held):
        replay += islice(trades(seed, seller), last + 1)
    subprocess.run(database.over_ssh("replayed"), input="\n".join(replay), text=True, check=True, cwd=ROOT)
    for table, order in TABLES.items():
        rows = f"SELECT {table}::text FROM market.{table} ORDER BY {order}"
        assert database.ask(rows, "restored") == database.ask(rows, "replayed"), table
    assert database.ask("SELECT count(*) FROM market.offers", "restored") != "0"


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
