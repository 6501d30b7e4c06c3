"""Chooses which backups to keep, from their manifests only, without a clock.

Only verified backups count. An unverified backup is kept until a newer one is verified. Backups are ordered by number.
So the newest `daily` backups stay even if a clock jumped or stood still. Of the weekly and monthly backups, at most the
oldest is lost then.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import date

from stackctl.backup.manifest import Manifest, in_order

Period = tuple[int, ...]


def choose(manifests: Iterable[Manifest], daily: int, weekly: int = 0, monthly: int = 0) -> set[str]:
    """Return the IDs of the backups to keep.

    These are the newest `daily` backups (at least one), and the newest backup of each of `daily` days, `weekly` weeks
    and `monthly` months. A backup that was sent off the droplet more than once occurs more than once, but counts once.
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
    """Return the newest backup of each period, for at most `most` periods.

    If a backup has a later time than one with a higher number, the clock has jumped. Such a backup is kept, but
    does not count.
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
