"""Which backups to keep. Pure: it reads manifests, and no clock.

What was verified counts; what wasn't is kept until something newer was. The order is the manifests' own: a clock that
jumped ahead, back, or stood still takes none of the newest `daily`; of weeks and months it costs the oldest at most.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import date

from stackctl.backup.manifest import Manifest, in_order

Period = tuple[int, ...]


def choose(manifests: Iterable[Manifest], daily: int, weekly: int = 0, monthly: int = 0) -> set[str]:
    """The ids to keep: the newest of so many days, weeks and months, and the newest `daily` of all (at least one).

    One id may come more than once: it was sent off the droplet again. It takes the place of one.
    """
    newest_first = in_order(manifests)[::-1]
    verified = [one for one in newest_first if one.verified]
    keep = set([*dict.fromkeys(one.id for one in verified)][: max(daily, 1)])
    for period, most in ((_day, daily), (_week, weekly), (_month, monthly)):
        keep |= _newest_of_each(verified, period, most)
    for one in newest_first:
        if one.verified:
            break
        keep.add(one.id)
    return keep


def _newest_of_each(newest_first: Sequence[Manifest], period: Callable[[date], Period], most: int) -> set[str]:
    """The newest of each period, until there are `most`.

    One whose time isn't before all newer ones' is of a clock that jumped: it is kept, and takes no other's place.
    """
    keep, counted = set[str](), 0
    earliest: Period | None = None
    newer: Manifest | None = None
    for one in newest_first:
        current = period(one.time.date())
        same = newer is not None and period(newer.time.date()) == current and one.time <= newer.time
        if not same and counted < most:
            keep.add(one.id)
        if earliest is None or current < earliest:
            counted += 1
            earliest = current
        newer = one
    return keep


def _day(at: date) -> Period:
    return at.timetuple()[:3]


def _week(at: date) -> Period:
    return at.isocalendar()[:2]


def _month(at: date) -> Period:
    return at.year, at.month
