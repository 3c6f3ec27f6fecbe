"""Filter those with room, score by load, pick the least: for prefill by tokens ahead, for decode by memory used."""

from collections.abc import Sequence

from router.policies.interface import Decision, Forecast, InstanceView, RequestView

# Prefill batches of work that may queue in an instance; the rest waits at the router, where it can still go elsewhere.
_MAX_BATCHES_AHEAD = 4


class LeastLoaded:
    def select(self, request: RequestView, instances: Sequence[InstanceView], forecast: Forecast) -> Decision | None:
        prefills = sorted(filter(takes_prompts, instances), key=prefill_load)
        decodes = sorted((it for it in instances if has_room(it, request)), key=decode_load)
        if not prefills or not decodes:
            return None
        for prefill in prefills:
            if prefill in decodes:
                return Decision(prefill.holder, prefill.holder)
            for decode in decodes:
                if decode.holder not in prefill.unreachable:
                    return Decision(prefill.holder, decode.holder)
        return Decision(prefills[0].holder, decodes[0].holder)  # it will decode where it is prefilled


def takes_prompts(instance: InstanceView) -> bool:
    """A sequence keeps its seat until it has been handed over, so seats run out before tokens do."""
    return (
        instance.can_prefill
        and instance.num_requests < instance.max_num_seqs
        and instance.num_queued_tokens < _MAX_BATCHES_AHEAD * instance.saturation_tokens
    )


def has_room(instance: InstanceView, request: RequestView) -> bool:
    """A seat, and blocks for the prompt and a token; an idle instance takes whatever was admitted."""
    if not instance.can_decode or instance.num_requests >= instance.max_num_seqs:
        return False
    needed = request.num_prompt_tokens // instance.block_size + 1
    return instance.num_committed_blocks + needed <= instance.num_blocks or instance.num_requests == 0


def prefill_load(instance: InstanceView) -> tuple[int, int, str]:
    return instance.num_queued_tokens, instance.num_requests, instance.holder.instance


def decode_load(instance: InstanceView) -> tuple[float, int, str]:
    return instance.num_committed_blocks / instance.num_blocks, instance.num_requests, instance.holder.instance
