"""An instance in the place of a connection: it says what the test makes it say."""

import asyncio
from typing import Any

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.sequence import FinishReason
from cluster.instance.config import InstanceInfo
from cluster.messages import Dispatch, Epoch, FrontMessage, GrantRefused, HandOver, Holder, StepUpdate, TokenUpdate
from cluster.role import InstanceRole, InstanceStatus
from cluster.snapshot import InstanceSnapshot
from router.backend import AdmittedRequest
from router.router import Router


class FakeInstance:
    """In the place of a connection: keeps what it is told, and speaks when the test lets it."""

    def __init__(self, router: Router, name: str, role: InstanceRole = InstanceRole.MIXED, **changes: Any) -> None:
        fields: dict[str, Any] = {
            "address": "",
            "link_address": "",
            "pid": 0,
            "num_blocks": 64,
            "block_size": 16,
            "max_model_len": 512,
            "max_num_seqs": 8,
            "saturation_tokens": 128,
            "kv_layout": "k",
        }
        self.info = InstanceInfo(name=name, incarnation=changes.pop("life", 1), role=role, **{**fields, **changes})
        self.holder = Holder(name, self.info.incarnation)
        self.role = role
        self.said: list[FrontMessage] = []
        self._router = router
        router.instances.connections[self.holder] = self  # type: ignore[assignment]
        router.instances.on_joined(self.info)
        router.instances.on_holdings(self.holder, ())

    def send(self, message: FrontMessage) -> None:
        self.said.append(message)

    async def close(self) -> None:
        pass

    def last(self, kind: type) -> Any:
        return [message for message in self.said if isinstance(message, kind)][-1]

    def say(self, request_id: str, epoch: Epoch, start: int, num: int, finish: FinishReason | None = None) -> None:
        tokens = tuple(range(start, start + num))
        update = TokenUpdate(
            request_id=request_id, epoch=epoch, start_index=start, token_ids=tokens, finish_reason=finish
        )
        self._router.instances.on_message(self.holder, StepUpdate(updates=(update,), num_dispatches_seen=1000))

    def begin(self, request_id: str) -> None:
        """The first tokens of what was dispatched here."""
        [dispatch] = [it for it in self.said if isinstance(it, Dispatch) and it.state.request_id == request_id]
        self.say(request_id, dispatch.epoch, 0, 3)

    def take(self, hand_over: HandOver) -> None:
        """The baton has come: the next token."""
        self.say(hand_over.request_id, hand_over.grant.epoch, 3, 1)

    def refuse(self, hand_over: HandOver, reason: str) -> None:
        refused = GrantRefused(request_id=hand_over.request_id, epoch=hand_over.grant.epoch, reason=reason)
        self._router.instances.on_message(self.holder, refused)

    def report(self, **fields: Any) -> None:
        self._router.instances.on_snapshot(
            InstanceSnapshot(
                instance=self.holder,
                role=self.role,
                status=InstanceStatus.RUNNING,
                num_blocks=64,
                num_free_blocks=64,
                **fields,
            )
        )


def submit(router: Router, request_id: str, num_prompt_tokens: int = 20, priority: int = 0) -> None:
    router.submit(
        AdmittedRequest(
            request_id=request_id,
            prompt_token_ids=tuple(range(num_prompt_tokens)),
            sampling_params=SamplingParams(max_tokens=100),
            deadline_s=None,
            priority=priority,
        )
    )


async def settle() -> None:
    """What is due happens."""
    for _ in range(10):
        await asyncio.sleep(0)
