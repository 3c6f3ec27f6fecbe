"""`baton validate`, `baton schema` and `baton model init`: commands about files."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from deploy.errors import InputError


def add_to(app: typer.Typer) -> None:
    app.command()(validate)
    app.command()(schema)
    model = typer.Typer(help="Checkpoints.", no_args_is_help=True)
    model.command("init")(init)
    app.add_typer(model, name="model")


def validate(file: Annotated[Path, typer.Argument(help="The deployment to check.")]) -> None:
    """Check a deployment file: its fields, their combinations, its model, and whether that fits into memory.

    What only the machines can tell on which instances will run is said, and checked when they start.
    """
    from cluster.spec.gpu_checks import unchecked
    from cluster.spec.load import load_deployment
    from deploy.preconditions import machine_here, ray_address

    here = machine_here(ray_address())
    deployment = load_deployment(file, **here)
    pools = ", ".join(f"{pool.replicas} × {pool.name} ({pool.role})" for pool in deployment.spec.pools)
    print(f"{file} is valid: {deployment.metadata.name} serves {deployment.spec.model.served_model_name} on {pools}")
    if note := unchecked(deployment, here["find_gpus"]):
        print(note)


def schema() -> None:
    """Print the JSON schema of deployment files, for editors and for reading."""
    from cluster.spec.deployment import Deployment

    print(json.dumps(Deployment.model_json_schema(), indent=2))


def init(
    path: Annotated[Path, typer.Argument(help="The directory to make.")],
    architecture: Annotated[str, typer.Option(help="LlamaForCausalLM or Qwen3ForCausalLM.")] = "LlamaForCausalLM",
    hidden_size: Annotated[int, typer.Option(min=1)] = 512,
    intermediate_size: Annotated[int, typer.Option(min=1)] = 1344,
    num_hidden_layers: Annotated[int, typer.Option(min=1)] = 8,
    num_attention_heads: Annotated[int, typer.Option(min=1)] = 8,
    num_key_value_heads: Annotated[int, typer.Option(min=1)] = 2,
    vocab_size: Annotated[int, typer.Option(min=1)] = 32_000,
    max_position_embeddings: Annotated[int, typer.Option(min=1)] = 16_384,
    tie_word_embeddings: Annotated[bool, typer.Option(help="One matrix for the first layer and the last.")] = False,
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option()] = "float32",
    seed: int = 0,
) -> None:
    """Make a checkpoint with random weights, for benchmarks and tests; the default has 54.5 million parameters."""
    if path.exists() and any(path.iterdir()):
        raise InputError(f"{path} exists and is not empty")
    if hidden_size % (2 * num_attention_heads):
        raise InputError(f"hidden size {hidden_size} cannot be divided into {num_attention_heads} heads of even size")
    from cluster.model.random_checkpoint import make_random_checkpoint

    shape: dict[str, Any] = {
        "architecture": architecture,
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": num_attention_heads,
        "num_key_value_heads": num_key_value_heads,
        "vocab_size": vocab_size,
        "max_position_embeddings": max_position_embeddings,
        "tie_word_embeddings": tie_word_embeddings,
    }
    try:
        make_random_checkpoint(path, seed=seed, dtype=dtype, **shape)
    except ValueError as error:
        raise InputError(str(error)) from error
    print(f"{path} holds a {architecture} with random weights")
