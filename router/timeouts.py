"""How long operators' calls may take: what the router allows itself, and after what a caller takes it for dead."""

# A handover that has not ended by then is reported as being under way; an instance takes a role within a snapshot.
MIGRATE_TIMEOUT_S = 60.0
SET_ROLE_TIMEOUT_S = 15.0

# A drain may take as long as its requests do: its progress is told at least so often, changed or not.
PROGRESS_INTERVAL_S = 2.0

# The callers'.
CALL_TIMEOUT_S = 5.0
MIGRATE_CALL_TIMEOUT_S = MIGRATE_TIMEOUT_S + CALL_TIMEOUT_S
SILENCE_S = SET_ROLE_TIMEOUT_S + CALL_TIMEOUT_S  # between two messages of a drain or a flip
