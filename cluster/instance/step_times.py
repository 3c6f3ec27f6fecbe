"""How fast an instance computes, as it was of late: the router predicts by it how long something will take."""

from cluster.engine.scheduler_output import SchedulerOutput

_KEPT = 0.9  # of what was known of decode steps, with each
_HALF_LIFE_TOKENS = 4096.0  # of prompts: short ones, in which a step is mostly overhead, say little


class StepTimes:
    """Steps with prompts in them tell of prefill, those without of decode. Both are 0 before the first one."""

    def __init__(self) -> None:
        self._began_s = 0.0
        self._num_prefilled = self._prefill_s = 0.0
        self._num_decode_steps = self._decode_s = 0.0

    @property
    def prefill_tokens_per_s(self) -> float:
        return self._num_prefilled / self._prefill_s if self._prefill_s else 0.0

    @property
    def decode_step_s(self) -> float:
        return self._decode_s / self._num_decode_steps if self._num_decode_steps else 0.0

    def begin(self, now_s: float) -> None:
        self._began_s = now_s

    def end(self, output: SchedulerOutput, now_s: float) -> None:
        seconds = now_s - self._began_s
        if not output.scheduled or seconds <= 0.0:
            return
        if any(each.num_tokens > 1 for each in output.scheduled):
            num_tokens = sum(each.num_tokens for each in output.scheduled)
            kept = 2.0 ** (-num_tokens / _HALF_LIFE_TOKENS)
            self._num_prefilled = kept * self._num_prefilled + num_tokens
            self._prefill_s = kept * self._prefill_s + seconds
        else:
            self.decoded(seconds)

    def decoded(self, seconds: float) -> None:
        """A step without prompts in it took so long."""
        self._num_decode_steps = _KEPT * self._num_decode_steps + 1
        self._decode_s = _KEPT * self._decode_s + seconds
