"""`baton bench ...`: each benchmark is a function with options of its own, imported when it is asked for."""

from collections.abc import Callable
from importlib import import_module

import typer

_BENCHMARKS = {
    "engine": ("deploy.bench.engine", "bench_engine", "The bare engine: decode throughput at several batch sizes."),
    "serve": ("deploy.bench.serve", "bench_serve", "A whole deployment: latencies and goodput under a trace."),
    "migration": ("deploy.bench.migration", "bench_migration", "Moving running requests: live, blocking, recomputing."),
    "dispatch": ("deploy.bench.dispatch", "bench_dispatch", "Choosing by measured links against choosing by load."),
    "simulator": ("deploy.bench.simulator", "bench_simulator", "The simulator beside a real cluster, and its speed."),
    "plans": ("deploy.bench.plans", "bench_plans", "Our plans against DistServe's and colocated instances."),
    "links": ("deploy.bench.links", "bench_links", "The links between instances, beside plain means of copying."),
}
# Options, --help among them, are the benchmark's to read.
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def add_to(app: typer.Typer) -> None:
    bench = typer.Typer(help="Measure.", no_args_is_help=True)
    for name, (module, function, summary) in _BENCHMARKS.items():
        bench.command(name, help=summary, context_settings=_PASS_ON)(_forward(name, module, function))
    app.add_typer(bench, name="bench")


def _forward(name: str, module: str, function: str) -> Callable[[typer.Context], None]:
    def run(context: typer.Context) -> None:
        benchmark = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
        benchmark.command()(getattr(import_module(module), function))
        benchmark(args=context.args, prog_name=f"baton bench {name}", standalone_mode=False)

    return run
