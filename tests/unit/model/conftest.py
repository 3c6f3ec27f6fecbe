import os

import pytest
import torch

from cluster.model import packed_products

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True, scope="session")
def mkl_where_it_is():
    """However busy the machine is: no timing decides what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_products, "times_onednn", lambda _: 1.0)
        packed_products.load_mkl.cache_clear()
        yield


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors: a second thread would only be waited for."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
