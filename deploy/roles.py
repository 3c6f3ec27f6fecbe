"""What each role does differently, for every instance of any pool: a role is data, and may change without an import."""

from cluster.role import InstanceRole, RolePolicies
from decode_workers.policy import DecodePolicy, MixedPolicy
from prefill_workers.policy import PrefillPolicy

ROLE_POLICIES: RolePolicies = {
    InstanceRole.PREFILL: PrefillPolicy(),
    InstanceRole.DECODE: DecodePolicy(),
    InstanceRole.MIXED: MixedPolicy(),
}
