"""`baton status` and `baton generate`: commands that speak to a running deployment."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from cluster.pb import baton_pb2

Address = Annotated[str | None, typer.Option(help="HOST:PORT of its gRPC front. Default: what runs here.")]


def add_to(app: typer.Typer) -> None:
    app.command()(status)
    app.command()(generate)


def status(
    name: Annotated[str | None, typer.Argument(help="Default: the only one that runs here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All of it, for programs.")] = False,
    address: Address = None,
) -> None:
    """Show the instances of a deployment, what they hold, and the links between them."""
    from google.protobuf.json_format import MessageToJson

    from deploy.client import fetch_status, find_address

    cluster = fetch_status(find_address(name, address))
    if as_json:
        print(MessageToJson(cluster, preserving_proto_field_name=True, always_print_fields_with_no_presence=True))
    else:
        _print_status(cluster)


def _print_status(cluster: "baton_pb2.ClusterStatus") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 120)
    waiting, running = cluster.num_waiting_requests, cluster.num_running_requests
    console.print(f"{cluster.deployment} serves {cluster.model}: {running} requests running, {waiting} waiting")
    instances = Table("instance", "role", "status", "running", "waiting", "blocks", "free", "reserved", "leaked", "pid")
    for one in cluster.instances:
        counts = one.num_running, one.num_waiting, one.num_blocks, one.num_free_blocks, one.num_reserved_blocks
        instances.add_row(one.instance, one.role, one.status, *map(str, (*counts, one.num_leaked_blocks, one.pid)))
    console.print(instances)
    if cluster.handovers:
        console.print(_handovers(cluster))
    if len(cluster.nodes) > 1:
        from deploy.cli.links import matrix, summary

        if nodes := matrix(cluster.nodes, cluster.node_links):
            console.print(nodes)
        for line in summary(cluster.nodes, cluster.node_links):
            console.print(line, highlight=False, soft_wrap=True, markup=False)
    if cluster.links:
        links = Table("link", "transport", "transfers", "MiB", "latency", "bandwidth", "failures")
        for link in cluster.links:
            latency, bandwidth = f"{link.alpha_s * 1e6:.0f} µs", f"{link.beta_bytes_per_s / 1e9:.2f} GB/s"
            counts_ = str(link.num_transfers), f"{link.num_bytes / (1 << 20):.1f}"
            ends = f"{link.source} → {link.target}"
            links.add_row(ends, link.transport, *counts_, latency, bandwidth, str(link.num_failures))
        console.print(links)


def _handovers(cluster: "baton_pb2.ClusterStatus") -> "Table":
    from rich.table import Table

    transports = {(link.source, link.target): link.transport for link in cluster.links}
    table = Table("handover", "request", "state", "stage", "blocks", "MiB", "link")
    for one in cluster.handovers:
        blocks, size = f"{one.num_blocks_sent} of {one.num_blocks}", f"{one.num_bytes / (1 << 20):.1f}"
        link = transports.get((one.source, one.target), "none yet")
        ends = f"{one.source} → {one.target}"
        table.add_row(ends, one.request_id, one.state, str(one.stage), blocks, size, link)
    return table


def generate(
    prompt: Annotated[str, typer.Argument(help="Text to go on from; - reads it from stdin.")],
    stream: Annotated[bool, typer.Option("--stream", help="Print tokens as they come.")] = False,
    max_tokens: Annotated[int, typer.Option(help="Tokens at most.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Of the probability mass, draw from the likeliest so much.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Equal seeds draw equal tokens.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Text to stop at; may be given several times.")] = None,
    address: Address = None,
) -> None:
    """Complete a prompt."""
    from cluster.pb import baton_pb2
    from deploy.client import connect, find_address

    parameters = baton_pb2.SamplingParams(
        temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed, stop=stop or ()
    )
    text = sys.stdin.read() if prompt == "-" else prompt
    request = baton_pb2.GenerateRequest(text=text, sampling_params=parameters)
    pieces = []
    with connect(find_address(None, address)) as stub:
        for delta in stub.Generate(request):
            pieces.append(delta.text)
            if stream:
                print(delta.text, end="", flush=True)
    print("" if stream else "".join(pieces))
