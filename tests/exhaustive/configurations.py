"""Which worlds are searched: what may go wrong in each."""

from tests.exhaustive.budget import Budget

# In every run of the tests: some seconds in all.
QUICK = (
    Budget(grants=2),
    Budget(grants=1, crashes=1),
    Budget(grants=1, restarts=1),
    Budget(grants=1, aborts=1),
    Budget(grants=1, refusals=1),
    Budget(grants=1, losses=1),
    Budget(grants=1, doubles=1),
    Budget(grants=1, delays=1),
    Budget(grants=1, cuts=1),
)

# By `make test-exhaustive`, each for `FULL_SECONDS` of processor time at most.
FULL = (
    Budget(grants=2),
    Budget(grants=2, aborts=1),
    Budget(grants=2, refusals=1),
    Budget(grants=2, losses=1),
    Budget(grants=2, doubles=1),
    Budget(grants=2, delays=1),
    Budget(grants=2, cuts=1),
    Budget(grants=2, timers=1),
    Budget(grants=2, crashes=1),
    Budget(grants=2, restarts=1),
    Budget(grants=1, suspicions=1),
    Budget(grants=1, losses=1, doubles=1, delays=1),
    Budget(grants=1, crashes=1, losses=1),
    Budget(grants=1, crashes=1, doubles=1),
    Budget(grants=1, crashes=1, delays=1),
    Budget(grants=1, crashes=1, aborts=1),
    Budget(grants=1, crashes=1, restarts=1),
    Budget(grants=1, restarts=1, timers=1),
    Budget(grants=2, crashes=1, suspicions=1, restarts=1, aborts=1, refusals=1, losses=1, doubles=1, delays=1),
)
FULL_SECONDS = 60.0
FULL_SECONDS_IN_ALL = 540.0
