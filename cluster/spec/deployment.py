"""A deployment, whole: what the top of the YAML holds."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from cluster.instance.config import EngineConfig, HandoverConfig
from cluster.links.config import LinkConfig, Transport
from cluster.spec.pool import Pool
from cluster.spec.quantity import Bytes
from cluster.spec.schema import Count, Name, Part, Seconds

_ENGINE, _LINKS, _HANDOVER = EngineConfig(), LinkConfig(), HandoverConfig()


class Model(Part):
    path: Annotated[str, Field(min_length=1)]
    """A Hugging Face checkpoint directory, relative to this file; the same on every node."""

    dtype: Literal["float32", "bfloat16"] = _ENGINE.dtype  # type: ignore[assignment]
    max_model_len: Count | None = _ENGINE.max_model_len
    """Prompt and output tokens of a request at most. Default: what the checkpoint was made for."""

    weights_from: Literal["disk", "peer"] = "disk"
    """peer: an instance that starts gets its weights from one that runs already, over its link, and from disk where
    none can give them. disk: always from there."""

    served_model_name: str | None = None
    """What clients call it. Default: the name of its directory."""


class Links(Part):
    transport: Transport = _LINKS.transport
    """auto: NCCL between GPUs; where KV is in host memory, shared memory within a host and TCP between hosts."""

    checksum: bool = _LINKS.checksum
    """Check every block after it has travelled."""

    max_connections: Annotated[int, Field(ge=1, le=8)] = _LINKS.max_connections
    """Over TCP, large transfers go over up to so many at once where a probe finds that faster."""

    setup_timeout_s: Seconds = _LINKS.setup_timeout_s
    transfer_timeout_s: Seconds = _LINKS.transfer_timeout_s


class Handover(Part):
    lease_s: Seconds = _HANDOVER.lease_s
    """A reservation outlives its silent source by so long."""

    reserve_timeout_s: Seconds = _HANDOVER.reserve_timeout_s
    """How long a source waits for a reservation before it is refused."""

    max_stages: Annotated[int, Field(ge=0)] = _HANDOVER.max_stages
    """A running request is moved in so many stages at most before it stands still; 0 is a blocking copy."""

    headroom_blocks: Count = _HANDOVER.headroom_blocks
    """Room over there for a running request to grow into while it is moved."""

    piece_bytes: Bytes = _HANDOVER.piece_bytes
    """Live moves leave in pieces of what a link moves in 20 ms, of this size at most, two at a time on each link."""

    max_bytes_in_flight: Bytes = _HANDOVER.max_bytes_in_flight
    """What all live moves of an instance have under way at most."""

    bytes_per_s: Bytes | None = _HANDOVER.bytes_per_s
    """What all live moves of an instance may use, its ranks together; null: as much as the links give."""


class Rescheduling(Part):
    policy: Literal["none", "load_balance"] = "load_balance"
    """load_balance: running requests leave instances whose memory runs out, for those with much of it (Llumnix)."""

    interval_s: Seconds = 1.0
    """How often the policy is asked."""

    source_below_steps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 256.0
    """An instance whose batch can take fewer decode steps in the memory that is left gives requests away."""

    target_above_steps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1024.0
    """An instance whose batch can take more takes them."""

    cooldown_rounds: Annotated[int, Field(ge=0)] = 10
    """A request that was moved stays for so many rounds."""

    margin_steps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 128.0
    """A request goes back to where it came from only if that brings the two instances closer by more."""

    max_move_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    """A move that is predicted to take longer is not made for balance; draining makes it all the same."""

    max_handovers_per_instance: Count = 2
    """That leave it or come to it at a time for balance or draining; prefilled requests are not counted."""


class Router(Part):
    policy: Literal["least_time", "least_loaded"] = "least_time"
    """Where a request is prefilled and decoded. least_time: by the seconds that both and the way between them are
    predicted to cost, with the links as measured. least_loaded: by load alone."""

    max_queued_requests: Count = 1024
    request_timeout_s: Seconds = 600.0
    """A request without a deadline of its own gets this one."""

    suspect_after_s: Seconds = 2.0
    """An instance that is silent for so long is treated as lost."""

    grace_s: Seconds = 10.0
    """A resumable request outlives its lost client, and any request a lost router, by so long."""

    retention_s: Seconds = 30.0
    """The tokens of a request that has ended are kept for so long, for a client that comes back."""

    rescheduling: Rescheduling = Rescheduling()
    """Which running requests are moved, and when."""


def _off(value: object) -> object:
    """YAML takes a plain `off` for false."""
    return "off" if value is False else value


class Placement(Part):
    """Which instance runs on which node, in a Ray cluster of more than one."""

    policy: Literal["measured", "spread"] = "measured"
    """measured: links are probed, instances put where KV travels fastest. spread: evenly, whatever the links give."""

    probe_budget_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 20.0
    """How long all probing before the first instance starts may take, about."""

    replace: Annotated[Literal["off", "warn", "apply"], BeforeValidator(_off)] = "warn"
    """When links have drifted so far that another placement is better: warn says so, apply carries it out."""

    margin: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Better is what saves this share of the time that KV takes from prefill to decode,"""

    check_interval_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 20.0
    """in three checks in a row, this far apart."""


class Slos(Part):
    """The latencies that a request has to meet to count towards goodput."""

    ttft_ms: Seconds | None = None
    tpot_ms: Seconds | None = None
    attainment: Annotated[float, Field(gt=0, le=1)] = 0.9
    """The share of requests that have to meet them."""


class Front(Part):
    host: str = "127.0.0.1"
    """Where to listen; 0.0.0.0 for every network of the router's node."""

    port: Annotated[int, Field(ge=0, le=65535)]
    """0: any free one."""


class GrpcFront(Front):
    port: Annotated[int, Field(ge=0, le=65535)] = 50051


class HttpFront(Front):
    port: Annotated[int, Field(ge=0, le=65535)] = 8000


class Fronts(Part):
    grpc: GrpcFront = GrpcFront()
    http: HttpFront = HttpFront()


class Spec(Part):
    model: Model
    pools: Annotated[list[Pool], Field(min_length=1)]
    links: Links = Links()
    handover: Handover = Handover()
    router: Router = Router()
    placement: Placement = Placement()
    slos: Slos = Slos()
    fronts: Fronts = Fronts()


class Metadata(Part):
    name: Name


class Deployment(Part):
    apiVersion: Literal["baton/v1"]
    kind: Literal["Deployment"]
    metadata: Metadata
    spec: Spec
