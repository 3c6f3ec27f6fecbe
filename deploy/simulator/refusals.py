"""Which requests nobody is asked for: what the router refuses, and prompts that no instance could compute."""

from collections.abc import Sequence

from cluster.role import InstanceRole
from deploy.simulator.cluster import SimInstance
from deploy.workload.request import WorkloadRequest
from router.errors import InvalidRequest
from router.model_info import ModelInfo
from router.validation import Limits, RequestedSampling, resolve_sampling


class Refusals:
    def __init__(self, instances: Sequence[SimInstance]) -> None:
        self._most, self._by = max(map(_max_prompt_tokens, instances))
        self._limits = Limits()
        self._model = ModelInfo(
            model="simulated",
            architecture="",
            max_model_len=max(instance.max_model_len for instance in instances),
            vocab_size=0,
            eos_token_ids=frozenset(),
        )

    def reason(self, request: WorkloadRequest) -> str | None:
        """Why it is refused, or None."""
        found = request.num_prompt_tokens
        if found > self._most:
            return f"a prompt of {found} tokens: no instance holds more than {self._most}, by its {self._by}"
        asked = RequestedSampling(max_tokens=request.num_output_tokens)
        try:
            resolve_sampling(asked, num_prompt_tokens=found, seed=0, model=self._model, limits=self._limits)
        except InvalidRequest as error:
            return str(error)
        return None


def _max_prompt_tokens(spec: SimInstance) -> tuple[int, str]:
    """That it can compute, and yield a token from; and by what that is limited."""
    if spec.role is InstanceRole.DECODE:
        return 0, "role"
    return min((spec.max_model_len - 1, "max_model_len"), (spec.num_blocks * spec.block_size, "KV memory"))
