"""Chooses which backups to keep, from their manifests only, without a clock.

Only verified backups count. An unverified backup is kept until a newer backup is verified. Backups are ordered by
number. So the newest `daily` backups are kept even if a clock jumped or stood still. A wrong clock loses at most the
oldest of the weekly and monthly backups.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import date

from stackctl.backup.manifest import Manifest, in_order

Period = tuple[int, ...]


def choose(manifests: Iterable[Manifest], daily: int, weekly: int = 0, monthly: int = 0) -> set[str]:
    """Return the IDs of the backups to keep.

    Keep the newest `daily` backups (at least one). Also keep the newest backup of each of the last `daily` days,
    `weekly` weeks and `monthly` months with a backup. A backup that was sent off the droplet several times counts once,
    although `manifests` has several entries for the backup.
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
    """Return the newest backup of each period (day, week or month), for at most `most` periods.

    If a backup has a later time than a backup with a higher number, the clock was wrong. A backup with such a time is
    kept, but does not use up a period.
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
