"""A shape of the GPU benchmarks that a CPU computes at once."""

from dataclasses import replace

from cluster.model.random_weights import llama_3_8b

SMALL = replace(
    llama_3_8b(),
    vocab_size=320,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_model_len=64,
)
