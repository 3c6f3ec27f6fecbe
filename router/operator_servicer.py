"""The calls of service Baton that are for operators: it only translates what operations, links and timeline say."""

from contextlib import aclosing
from dataclasses import asdict
from typing import Any

import grpc

from cluster.pb import baton_pb2
from router.errors import InvalidRequest
from router.grpc_errors import Context, errors_as_status
from router.links.links import Links
from router.links.probe_operation import probe_all
from router.links.rows import link_rows_to_pb, node_rows_to_pb
from router.operations import DrainProgress, Operations
from router.timeline import Timeline, TimelineEvent


class OperatorServicer:
    def __init__(self, operations: Operations, timeline: Timeline, links: Links) -> None:
        self._operations = operations
        self._timeline = timeline
        self._links = links

    async def migrate(self, request: baton_pb2.MigrateRequest, context: Context) -> baton_pb2.MigrateResponse:
        async with errors_as_status(context):
            _require(request, "request_id", "instance")
            migrated = await self._operations.migrate(request.request_id, request.instance)
            return baton_pb2.MigrateResponse(source=migrated.source, target=migrated.target)

    async def drain(self, request: baton_pb2.DrainRequest, context: Context) -> None:
        async with errors_as_status(context):
            _require(request, "instance")
            if request.undo:
                await context.write(_progress_to_pb(self._operations.undo_drain(request.instance)))
                return
            async with aclosing(self._operations.drain(request.instance)) as steps:
                async for progress in steps:
                    await context.write(_progress_to_pb(progress))

    async def flip(self, request: baton_pb2.FlipRequest, context: Context) -> None:
        async with errors_as_status(context):
            _require(request, "instance", "role")
            async with aclosing(self._operations.flip(request.instance, request.role)) as steps:
                async for progress in steps:
                    await context.write(_progress_to_pb(progress))

    async def trace(self, request: baton_pb2.TraceRequest, context: Context) -> baton_pb2.RequestTrace:
        async with errors_as_status(context):
            _require(request, "request_id")
            events = [_event_to_pb(event) for event in self._timeline.of(request.request_id)]
            return baton_pb2.RequestTrace(request_id=request.request_id, events=events)

    async def probe(self, request: baton_pb2.ProbeRequest, context: Context) -> None:
        async with errors_as_status(context), aclosing(probe_all(self._links, request.budget_s)) as steps:
            async for step in steps:
                progress = baton_pb2.ProbeProgress(**asdict(step))
                if step.done:
                    progress.links.extend(link_rows_to_pb(self._links.link_rows()))
                    progress.nodes.extend(node_rows_to_pb(self._links.node_rows()))
                await context.write(progress)

    async def set_dispatch_policy(
        self, request: baton_pb2.SetDispatchPolicyRequest, context: Context
    ) -> baton_pb2.SetDispatchPolicyResponse:
        async with errors_as_status(context):
            _require(request, "policy")
            previous = self._operations.set_dispatch_policy(request.policy)
            return baton_pb2.SetDispatchPolicyResponse(previous=previous)

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        unary: dict[str, tuple[Any, Any]] = {
            "Migrate": (self.migrate, baton_pb2.MigrateRequest),
            "Trace": (self.trace, baton_pb2.TraceRequest),
            "SetDispatchPolicy": (self.set_dispatch_policy, baton_pb2.SetDispatchPolicyRequest),
        }
        stream: dict[str, tuple[Any, Any]] = {
            "Drain": (self.drain, baton_pb2.DrainRequest),
            "Flip": (self.flip, baton_pb2.FlipRequest),
            "Probe": (self.probe, baton_pb2.ProbeRequest),
        }
        handlers = {name: _handler(grpc.unary_unary_rpc_method_handler, *method) for name, method in unary.items()}
        handlers |= {name: _handler(grpc.unary_stream_rpc_method_handler, *method) for name, method in stream.items()}
        return handlers


def _handler(make: Any, method: Any, message: Any) -> "grpc.RpcMethodHandler[Any, Any]":
    handler: grpc.RpcMethodHandler[Any, Any] = make(method, message.FromString, lambda reply: reply.SerializeToString())
    return handler


def _require(request: Any, *fields: str) -> None:
    for field in fields:
        if not getattr(request, field):
            raise InvalidRequest(field, "must not be empty")


def _progress_to_pb(progress: DrainProgress) -> baton_pb2.DrainProgress:
    return baton_pb2.DrainProgress(num_requests=progress.num_requests, num_moved=progress.num_moved, done=progress.done)


def _event_to_pb(event: TimelineEvent) -> baton_pb2.TraceEvent:
    note = event.note
    return baton_pb2.TraceEvent(
        at_s=event.at_s,
        event=note.step.value,
        instance=note.holder.instance if note.holder else "",
        peer=note.peer.instance if note.peer else "",
        reason=note.reason,
        num_output_tokens=note.num_output_tokens,
    )
