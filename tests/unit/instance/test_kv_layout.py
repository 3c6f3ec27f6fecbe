import pytest

from cluster.instance.kv_layout import kv_layout
from tests.unit.spec.factories import make_checkpoint

pytestmark = pytest.mark.unit


@pytest.fixture
def checkpoint(tmp_path):
    make_checkpoint(tmp_path / "a")
    return tmp_path / "a"


def test_equal_weights_make_equal_layouts_wherever_they_lie(checkpoint, tmp_path):
    make_checkpoint(tmp_path / "b")
    assert kv_layout(str(checkpoint), "float32", 16, 1024) == kv_layout(str(tmp_path / "b"), "float32", 16, 1024)


@pytest.mark.parametrize("changes", [("bfloat16", 16, 1024), ("float32", 32, 1024), ("float32", 16, 512)])
def test_another_number_format_or_block_makes_another_layout(checkpoint, changes):
    assert kv_layout(str(checkpoint), *changes) != kv_layout(str(checkpoint), "float32", 16, 1024)


def test_weights_of_another_training_make_another_layout(checkpoint):
    before = kv_layout(str(checkpoint), "float32", 16, 1024)
    weights = checkpoint / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert kv_layout(str(checkpoint), "float32", 16, 1024) != before
