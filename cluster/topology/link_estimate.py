"""What is believed of one link: probed at first, corrected by every transfer, and whether it is as good as it was."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import exp, log

from cluster.topology.fit import fit_link, weighted_median
from cluster.topology.link_model import LinkModel, TransferSample

# Where recent transfers say nothing of latency or of bandwidth, the last probe goes on to answer, as one more sample,
# unless they contradict it.
_LARGE_BYTES = 64 << 20
_TELLING_PART = 0.3
_BETTER = 0.5

# A change of state takes so many transfers in a row that bear it out: late ones by this factor, of those that should
# show it by so much, for what takes less is as likely to have waited for a processor as for the link.
_IN_A_ROW = 3
_LATE = 1.5
_NOTICEABLE_S = 0.002


class LinkState(Enum):
    UNKNOWN = "unknown"
    GOOD = "good"
    DEGRADED = "degraded"


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateConfig:
    num_samples: int = 16
    half_life_samples: float = 4.0
    """A transfer counts half of one that came so many later,"""

    half_life_s: float = 30.0
    """or so much later."""

    min_samples: int = 4
    """Fewer transfers change no state, and nothing that a probe has found. (A probe may: it is many of them.)"""

    degraded_slowdown: float = 2.0
    """A link is degraded when `reference_bytes` take so many times what they took, or take over links of its kind,"""

    recovered_slowdown: float = 1.3
    """until they take no more than this."""

    reference_bytes: int = 4 << 20
    history_half_life_s: float = 600.0
    """What a link used to give moves half of the way to what it gives in such a time. While it is degraded too: what
    seemed to be its usual may have been luck, and what it has given for long is what it gives."""

    better_after: int = 8
    """So many transfers in a row that are better than what it used to give are believed; a probe counts for half."""

    stale_after_s: float = 60.0
    """Without transfer and probe for so long, a link is worth a probe,"""

    degraded_stale_after_s: float = 10.0
    """one that is avoided sooner, since no transfer will tell that it has recovered."""


class LinkEstimate:
    """Of one link in one direction. Pure: the caller says what time it is; times never go back.

    States: UNKNOWN -> GOOD <-> DEGRADED, with a gap between the two thresholds.
    """

    def __init__(self, config: EstimateConfig | None = None) -> None:
        self._config = config or EstimateConfig()
        self._probe: LinkModel | None = None
        self._samples: deque[tuple[float, TransferSample]] = deque(maxlen=self._config.num_samples)
        self._model: LinkModel | None = None
        self._state = LinkState.UNKNOWN
        self._history_s = 0.0  # what reference_bytes took when the link was good
        self._num_better, self._better_s = 0, 0.0  # transfers in a row that took less, and the longest of them
        self._good: LinkModel | None = None  # as it was then
        self._num_good = 0  # transfers in a row after which it seemed to be good
        self._updated_s: float | None = None
        self._is_hearsay = False
        self._num_samples = 0

    @property
    def model(self) -> LinkModel | None:
        """None before the first probe or transfer."""
        return self._model

    @property
    def state(self) -> LinkState:
        return self._state

    @property
    def num_samples(self) -> int:
        """All transfers so far."""
        return self._num_samples

    def age_s(self, now_s: float) -> float | None:
        return None if self._updated_s is None else now_s - self._updated_s

    def is_stale(self, now_s: float) -> bool:
        """Whether a probe would be worth its bytes, when the link is idle."""
        degraded = self._state is LinkState.DEGRADED
        after_s = self._config.degraded_stale_after_s if degraded else self._config.stale_after_s
        return self._is_hearsay or self._updated_s is None or now_s - self._updated_s >= after_s

    def surveyed(self, model: LinkModel, now_s: float) -> LinkState:
        """It was found at some time before: believed as a probe is, and stale from the start."""
        state = self.probed(model, now_s)
        self._is_hearsay = True
        return state

    def probed(self, model: LinkModel, now_s: float, kind: LinkModel | None = None) -> LinkState:
        """A probe outweighs all that was known. `kind`: what links like this one give; returns the state."""
        self._probe = model
        self._samples.clear()
        return self._update(model, now_s, kind, is_sure=True)

    def transferred(self, samples: Sequence[TransferSample], now_s: float, kind: LinkModel | None = None) -> LinkState:
        """Transfers have come to their ends, in this order; one fit for all of them. Returns the state."""
        self._num_samples += len(samples)
        self._samples.extend((now_s, sample) for sample in samples)
        is_sure = len(self._samples) >= self._config.min_samples
        if self._probe is not None and not is_sure:  # a stall right after a probe refutes nothing
            self._updated_s = now_s
            return self._state
        fitted = self._fit()
        return (
            self._state
            if fitted is None
            else self._update(fitted, now_s, kind, is_sure=is_sure, num_transfers=len(samples))
        )

    def _fit(self) -> LinkModel | None:
        believed = self._model or self._probe
        newest_s = self._samples[-1][0]
        points: list[tuple[float, float]] = []
        weights: list[float] = []
        of_latency = of_bandwidth = 0.0
        for back, (at_s, sample) in enumerate(reversed(self._samples)):
            age = back / self._config.half_life_samples + (newest_s - at_s) / self._config.half_life_s
            weight = sample.share * 2.0**-age
            points.append((sample.num_bytes, _alone_s(sample, believed)))
            weights.append(weight)
            if self._probe:
                part = self._probe.alpha_s / self._probe.seconds(sample.num_bytes)
                of_latency += weight * (part >= _TELLING_PART)
                of_bandwidth += weight * (part <= 1.0 - _TELLING_PART)
        plain = fit_link(points, weights)
        if self._probe is None or plain is None:
            return plain
        if of_latency < 1.0:
            points.append((0.0, max(self._probe.alpha_s, 1e-9)))
            weights.append(1.0)
        if of_bandwidth < 1.0:
            points.append((_LARGE_BYTES, self._probe.seconds(_LARGE_BYTES)))
            weights.append(1.0)
        anchored = fit_link(points, weights)
        if anchored is None or plain.residual < _BETTER * _residual(anchored, points[: len(self._samples)], weights):
            return plain  # the transfers contradict the probe where it would have answered
        return anchored

    def _update(
        self, model: LinkModel, now_s: float, kind: LinkModel | None, *, is_sure: bool, num_transfers: int = 0
    ) -> LinkState:
        """Without transfers it was a probe."""
        seconds = self._seconds(model)
        before_s = self._updated_s if self._updated_s is not None else now_s
        self._model, self._updated_s, self._is_hearsay = model, now_s, False
        if not is_sure:
            return self._state
        if self._state is LinkState.UNKNOWN:
            self._state, self._history_s = LinkState.GOOD, seconds
        judged = self._judge(seconds, kind)
        self._num_good = self._num_good + num_transfers if judged is LinkState.GOOD else 0
        if not num_transfers or self._is_borne_out(judged, model, kind):
            self._state = judged
        if self._state is LinkState.GOOD and judged is LinkState.GOOD:
            self._good = model
        self._remember(seconds, now_s - before_s, num_transfers)
        return self._state

    def _remember(self, seconds: float, after_s: float, num_transfers: int) -> None:
        """What the link used to give, so much later. One measurement speaks for no longer than until it is stale."""
        kept = 2.0 ** -(min(after_s, self._config.stale_after_s) / self._config.history_half_life_s)
        self._history_s = exp(kept * log(self._history_s) + (1.0 - kept) * log(seconds))
        # Better than before is believed soon. What small transfers seem to promise of larger ones is not.
        is_telling = not num_transfers or any(it.num_bytes >= self._config.reference_bytes for _, it in self._samples)
        if seconds >= self._history_s or not is_telling:
            self._num_better, self._better_s = 0, 0.0
            return
        self._num_better += num_transfers or self._config.better_after // 2
        self._better_s = max(self._better_s, seconds)
        if self._num_better >= self._config.better_after:
            self._history_s = min(self._history_s, self._better_s)
            self._num_better, self._better_s = 0, 0.0

    def _is_borne_out(self, judged: LinkState, model: LinkModel, kind: LinkModel | None) -> bool:
        """Whether the last transfers say by themselves that the link has changed; where it has not, nothing has to."""
        if judged is self._state:
            return True
        if judged is LinkState.GOOD:
            return self._num_good >= _IN_A_ROW
        usual = min((it for it in (self._good, kind) if it is not None), key=self._seconds, default=None)
        if usual is None:
            return True
        telling = [
            it for _, it in self._samples if model.seconds(it.num_bytes) >= usual.seconds(it.num_bytes) + _NOTICEABLE_S
        ]
        last = telling[-_IN_A_ROW:]
        late = (_alone_s(it, usual) >= _LATE * usual.seconds(it.num_bytes) for it in last)
        return len(last) == _IN_A_ROW and all(late)

    def _seconds(self, model: LinkModel) -> float:
        return model.seconds(self._config.reference_bytes)

    def _judge(self, seconds: float, kind: LinkModel | None) -> LinkState:
        expected_s = self._history_s
        if kind is not None:
            expected_s = min(expected_s, self._seconds(kind))
        if seconds >= self._config.degraded_slowdown * expected_s:
            return LinkState.DEGRADED
        if seconds <= self._config.recovered_slowdown * expected_s:
            return LinkState.GOOD
        return self._state


def _alone_s(sample: TransferSample, believed: LinkModel | None) -> float:
    """How long the transfer would have taken with the link to itself: what it shared was the bandwidth only."""
    if sample.share >= 1.0 or believed is None:
        return sample.seconds
    latency_s = min(believed.alpha_s, sample.seconds)
    return latency_s + (sample.seconds - latency_s) * sample.share


def _residual(model: LinkModel, points: list[tuple[float, float]], weights: list[float]) -> float:
    errors = (abs(t - model.seconds(n)) / model.seconds(n) for n, t in points)
    return weighted_median(zip(errors, weights, strict=False))
