"""What the decode pool does differently, and what an instance does that has both roles."""

from cluster.role import RolePolicy

# Every admitted sequence keeps growing here: without slack the next step preempts what was just let in.
DECODE_POLICY = RolePolicy(prefills_to_saturation=False, admission_watermark=0.02)
