# `make serve` brings the embedded deployment up, `make test` runs all tests; both install first when that is needed.

VENV ?= .venv
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do $$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: install serve test test-unit test-integration test-exhaustive test-gpu test-kernels test-ranks test-worlds test-faults test-planner soak compiled uncompiled lint format proto clean

install: $(STAMP)

# Whoever forbids Python to keep what it has compiled would have every process of a cluster compile torch anew.
export PYTHONDONTWRITEBYTECODE :=

# torch first and by itself: a CPU build of the pinned version is taken where pip is pointed to one. Of what is
# installed, most is never imported: torch and Ray are compiled here, on all cores, the rest when it is first used.
$(STAMP): constraints.txt pyproject.toml
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or 3.12 is needed; PYTHON=... says where it is' >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile '$(TORCH)'
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[test]'
	$(BIN)/python -m compileall -q -j 0 -x '/(tests?|testing|rllib)/' $(VENV)/lib/python*/site-packages/torch $(VENV)/lib/python*/site-packages/ray
	touch $@

serve: install
	$(BIN)/baton up deploy/local.yaml

test: test-unit test-integration

# Two processes at a time, a core for each.
test-unit: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m 'unit or simulated'

# Most of an integration test is waiting, so two files at a time; what measures shaped links runs alone.
test-integration: install
	$(BIN)/pytest -n 2 --dist loadfile -m integration tests/integration
	$(BIN)/pytest -m netns tests/netns

# Ten thousand clusters of brains without bodies, each under another seed of faults: minutes.
test-worlds: install
	$(BIN)/python -m tests.simulated.many_worlds

# Needs a GPU, `pip install '.[gpu]'` and no Ray; says why it skips where there is no GPU. All such tests are in tests/gpu.
test-gpu: install
	$(BIN)/pytest -m gpu -rs tests/gpu

# The Triton kernels without a GPU: many shapes in the interpreter, and compiled for GPUs that are not here (docs/gpu.md).
test-kernels: install
	$(BIN)/pip install --quiet 'triton>=3.4'
	BATON_KERNEL_SHAPES=60 OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -rs tests/unit/model/test_triton_attention.py tests/unit/model/test_varlen_attention.py \
	  tests/unit/model/test_fused_forward.py tests/unit/model/test_gpu_steps.py tests/integration/test_gpu_steps_of_ranks.py tests/unit/links/test_xxh3_kernel.py
	TRITON_DEFAULT_FP_FUSION=1 $(BIN)/python -m tests.unit.model.compile_kernels

# A request moves between instances of one, two and four ranks, each to each, and survives the last; a minute or two.
test-ranks: install
	BATON_ALL_RANKS=1 $(BIN)/pytest tests/integration/test_tensor_parallel.py tests/integration/test_peer_weights.py

# Ten thousand requests moved about at random under load, in real processes: nothing may be lost, wrong or left behind.
soak: install
	$(BIN)/python -m tests.soak.migrations

# Every fault at every step of a handover, on a real cluster: prints the table, in about twenty minutes.
test-faults: install
	$(BIN)/python -m tests.faults

# Every interleaving of small worlds with the real ledger and cores: ten minutes at most (docs/handover-search.md).
test-exhaustive: install
	$(BIN)/python -m tests.exhaustive

# The planner's claims by simulation: its two limits, its anchor, its bounds (docs/placement.md). Minutes.
test-planner: install
	$(BIN)/python -m tests.planner

# What simulations spend their time in, compiled where it lies: 1.7 times as fast, with the same outcome. Takes a C
# compiler and two minutes; what is edited afterwards is not seen before `make uncompiled`. What these modules share
# lies in this folder, where `baton` does not look by itself.
compiled: uncompiled install
	$(BIN)/mypyc $$(cat deploy/simulator/compiled.txt)
	echo '$(CURDIR)' > $$(echo $(VENV)/lib/python*/site-packages)/baton-compiled.pth
	$(BIN)/python -P -c 'import deploy.simulator.simulate'
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 $(patsubst %,tests/simulated/test_%.py,golden fast_forward planning)

uncompiled:
	rm -rf build *__mypyc.*.so $(VENV)/lib/python*/site-packages/baton-compiled.pth
	find cluster router deploy -name '*.so' -delete

lint: install
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pytest -q tests/unit/test_house.py

format: install
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# Generated code lives in cluster/pb: the import name `proto` belongs to another distribution.
proto: install
	$(BIN)/python -m grpc_tools.protoc -Icluster/pb=proto --python_out=. --pyi_out=. --grpc_python_out=. \
	  $(patsubst proto/%,cluster/pb/%,$(wildcard proto/*.proto))

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
