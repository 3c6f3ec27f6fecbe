"""What the prefill pool does differently."""

from cluster.role import RolePolicy

# Beyond saturation a longer batch only makes everybody in it wait; what passes through here never grows for long.
PREFILL_POLICY = RolePolicy(prefills_to_saturation=True, admission_watermark=0.0)
