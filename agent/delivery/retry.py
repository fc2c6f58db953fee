"""When to try again. Pure: randomness is handed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

# Engage's docs give 10, 30, 60, 300 s for jobs between systems; a key that is being created just
# now, or a change whose neighbours were refused with it, is settled much sooner.
SOON_S = 2.0
LONGEST_WISH_S = 3600.0
# The longest window in which the backlog starts, in intervals of link.probe_s: 5 minutes as usual.
_START_WINDOW = 20

Uniform = Callable[[float, float], float]


def next_wait(
    waits_s: Sequence[float],
    tries: int,
    uniform: Uniform,
    *,
    retry_after_s: float | None = None,
    soon: bool = False,
) -> float:
    """Give the seconds until the next try, after `tries` of them (1 for the first).

    The last of `waits_s` repeats for ever: nothing expires. Full jitter is added after the cap, so
    that a thousand tills do not come back together. Engage's Retry-After is a lower bound, up to an
    hour.
    """
    if retry_after_s is not None:
        wish = min(retry_after_s, LONGEST_WISH_S)
        return wish + uniform(0, max(1.0, wish * 0.2))
    wait = min(SOON_S, waits_s[0]) if soon else waits_s[min(max(tries, 1), len(waits_s)) - 1]
    return wait + uniform(0, wait)


def backlog_after(outage_s: float, probe_s: float, uniform: Uniform) -> float:
    """Give the seconds after which the backlog starts, once the line is back.

    A moment of each till's own, because a whole chain may have been cut off by the same cause and
    shares one limit. After a short outage little waits, and the window is as short.
    """
    return uniform(0, min(outage_s / 2, _START_WINDOW * probe_s))
