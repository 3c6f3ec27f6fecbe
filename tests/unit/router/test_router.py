"""The router as a front sees it, without instances that answer."""

import pytest

from cluster.engine.sampling_params import SamplingParams
from cluster.handshake import draw_secret
from cluster.instance.config import InstanceInfo
from cluster.role import InstanceRole
from router.config import RouterConfig
from router.errors import DuplicateRequest
from router.generation import AdmittedRequest
from router.router import Router

pytestmark = pytest.mark.unit


def make_router() -> Router:
    """With an instance of each role."""
    router = Router(
        RouterConfig(name="r0", deployment="test", model_name="tiny", model_path="", secret=draw_secret(), term=1)
    )
    for role in (InstanceRole.PREFILL, InstanceRole.DECODE):
        router.on_joined(
            InstanceInfo(
                name=role.value,
                incarnation=1,
                role=role,
                address="",
                link_address="",
                pid=0,
                num_blocks=64,
                block_size=16,
                max_model_len=512,
                max_num_seqs=8,
                saturation_tokens=128,
            )
        )
    return router


def make_request(request_id: str) -> AdmittedRequest:
    return AdmittedRequest(
        request_id=request_id,
        prompt_token_ids=(1, 2, 3),
        sampling_params=SamplingParams(),
        deadline_s=None,
        priority=0,
    )


async def test_an_id_is_taken_until_its_request_ends() -> None:
    router = make_router()
    router.submit(make_request("r"))
    with pytest.raises(DuplicateRequest):
        router.submit(make_request("r"))
    assert router.abort("r")
    router.submit(make_request("r"))


async def test_closing_a_stream_ends_its_request() -> None:
    router = make_router()
    await router.submit(make_request("r")).aclose()
    assert not router.abort("r")


async def test_closing_the_stream_of_a_request_that_has_ended_leaves_the_next_one_with_its_id_alone() -> None:
    router = make_router()
    stream = router.submit(make_request("r"))
    router.abort("r")
    router.submit(make_request("r"))
    await stream.aclose()
    assert router.abort("r")
