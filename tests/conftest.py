import os

import jax
import main_runs
import pytest

import ofa_jax
from configs import digits_resnet
from ofa_jax.config import from_dict

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)
main_runs.share_compiled()
# The tests' own programs too: many tests build the same ones anew.
jax.config.update("jax_compilation_cache_dir", os.environ["OFA_JAX_COMPILED"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

MBV3 = "ofa_mbv3_d234_e346_k357_w1.0"
MBV3_WIDE = "ofa_mbv3_d234_e346_k357_w1.2"
PROXYLESS = "ofa_proxyless_d234_e346_k357_w1.3"
RESNET = "ofa_resnet50"
TINY = "ofa_tiny_d123_e346_k357"


@pytest.fixture(autouse=True, scope="module")
def _free_memory():
    """Compiled programs are not kept beyond their file: by the end there would be gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture(params=[MBV3, MBV3_WIDE, PROXYLESS, RESNET, TINY])
def space(request):
    """Every space, with 10 classes: small images make it cheap (see `pixels`)."""
    return ofa_jax.get_space(request.param, num_classes=10)


@pytest.fixture(params=[MBV3, "small ResNet", TINY])
def deep_and_tiny(request):
    """One published space, and small ones, for what takes long to compile (gradients)."""
    return named(request.param)


@pytest.fixture(params=[MBV3, PROXYLESS, RESNET, "small ResNet", TINY])
def every_kind(request):
    """A space of each kind, two minutes each to compile, and small ones."""
    return named(request.param)


def named(name):
    if name == "small ResNet":
        return digits_resnet_space()
    return ofa_jax.get_space(name, num_classes=10)


@pytest.fixture
def small_resnet():
    return digits_resnet_space()


def digits_resnet_space():
    return from_dict(digits_resnet.get_config().to_dict()).search_space(10)


@pytest.fixture
def tiny():
    return ofa_jax.get_space(TINY, num_classes=10)
