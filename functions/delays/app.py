"""Suspicious delays: flights whose lateness an airport cannot explain.

Most delays start at the gate: a flight leaves 40 minutes late and lands 35 minutes late. Two kinds do not fit:

- it lost more than an hour *after* it had left the gate: in the queue for the runway, or in a holding pattern;
- it left more than six hours late, which is longer than a crew may wait: more likely a wrong date than a delay.
"""

from dataclasses import dataclass

from kflow import Record, on_stream

LOST_ON_THE_WAY = 60
LEFT_LATE = 6 * 60


@dataclass
class Flight:
    """What the rule needs of a departure; fields of the record that are not named here are ignored.

    Delays are minutes, negative when early. None is how the data's `NA` arrives: a cancelled flight has neither delay,
    a diverted one has no arrival delay, and some aircraft are not named.
    """

    time_hour: str
    carrier: str
    flight: int
    origin: str
    dest: str
    dep_delay: int | None = None
    arr_delay: int | None = None
    tailnum: str | None = None


def suspicion(flight: Flight) -> str | None:
    """Why this delay deserves a look; None if it does not."""
    if flight.dep_delay is None:  # cancelled: nobody was late
        return None
    if flight.dep_delay > LEFT_LATE:
        return f"left {flight.dep_delay} minutes late"
    if flight.arr_delay is not None and flight.arr_delay - flight.dep_delay > LOST_ON_THE_WAY:
        return f"lost {flight.arr_delay - flight.dep_delay} minutes after leaving the gate"
    return None


@on_stream("flights", maximum_retry_attempts=2, bisect_batch_on_function_error=True)
def delays(record: Record[Flight]) -> None:
    """Print the suspicious ones. A record that is no `Flight` fails before this is called: it alone is parked."""
    flight = record.value
    if why := suspicion(flight):
        print(
            f"{flight.time_hour} {flight.carrier}{flight.flight} {flight.origin}-{flight.dest} {flight.tailnum}: {why}"
        )
