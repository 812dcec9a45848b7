import ctypes
import gc
import os
import re
import resource

import jax
import main_runs
import pytest
from xdist.scheduler import LoadFileScheduling

import ofa_jax
from configs import digits_resnet, smoke
from ofa_jax.run.config import from_dict
from ofa_jax.storage import as_path

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)
main_runs.share_compiled()
main_runs.restore_signals()
# The tests' own programs too: many tests build the same ones again.
jax.config.update("jax_compilation_cache_dir", os.environ["OFA_JAX_COMPILED"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="session")
def bucket():
    """A bucket of Google Cloud Storage on loopback, where this process and its children find it.

    One for all tests: what reads the environment may do so once.
    """
    pytest.importorskip("gcsfs", reason="the extra gcs is not installed")
    from bucket import serving

    with serving() as served, pytest.MonkeyPatch.context() as environment:
        for name, value in served.environment.items():
            environment.setenv(name, value)
        yield served


@pytest.fixture
def in_bucket(bucket, request):
    """A directory of the test's own in the bucket."""
    return as_path(f"gs://bucket/{re.sub('[^a-z0-9]+', '-', request.node.name)}")


MBV3 = "ofa_mbv3_d234_e346_k357_w1.0"
MBV3_WIDE = "ofa_mbv3_d234_e346_k357_w1.2"
PROXYLESS = "ofa_proxyless_d234_e346_k357_w1.3"
RESNET = "ofa_resnet50"
TINY = "ofa_tiny_d123_e346_k357"


LARGE = 1.5e9  # bytes: a process that has grown to this lets go of its compiled programs


@pytest.fixture(autouse=True)
def _free_memory():
    """Compiled programs are not kept forever: a session's would fill gigabytes."""
    yield
    if _resident() > LARGE:
        jax.clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what Python and LLVM have freed


def _resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


LONG = (
    "test_end_to_end.py", "test_notebooks.py", "test_processes.py", "test_readme.py",
    "test_benchmarks.py", "test_parallel.py", "test_step.py", "test_branches.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """What takes minutes first, so that no worker is alone with it at the end."""
    items.sort(key=lambda item: item.path.name not in LONG)


def pytest_xdist_make_scheduler(config, log):
    """Tests of a file stay together, as they share a run; files in their own order, not by size."""
    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


PEAKS = {}  # gigabytes by process


def pytest_sessionfinish(session):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["peak"] = peak
    else:
        PEAKS["main"] = peak


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    PEAKS[node.gateway.id] = getattr(node, "workeroutput", {}).get("peak", float("nan"))


def pytest_terminal_summary(terminalreporter):
    peaks = ", ".join(f"{name} {peak:.1f} GB" for name, peak in sorted(PEAKS.items()))
    terminalreporter.write_line(f"peak memory: {peaks}")


SMALL_RESNET, SMALL_MOBILENET = "small ResNet", "small MobileNetV3"


SMALL = (SMALL_RESNET, SMALL_MOBILENET)


def slow(*values):
    """Parameters of tests that only `-m slow` runs."""
    rows = [value if isinstance(value, tuple) else (value,) for value in values]
    return [pytest.param(*row, marks=pytest.mark.slow) for row in rows]


@pytest.fixture(params=[MBV3, MBV3_WIDE, PROXYLESS, RESNET, TINY])
def space(request):
    """Every space, with 10 classes: small images make it cheap (see `pixels`)."""
    return ofa_jax.get_space(request.param, num_classes=10)


# The wider MobileNetV3 differs from the other in its widths alone: golden figures are enough.
@pytest.fixture(params=[*slow(MBV3, PROXYLESS, RESNET), *SMALL])
def space_to_run(request):
    """Every space, for what runs or compiles whole nets: published ones take minutes."""
    return named(request.param)


@pytest.fixture(params=[*slow(MBV3), *SMALL])
def deep_and_tiny(request):
    """One published space, and small ones, for what takes long to compile (gradients)."""
    return named(request.param)


def named(name):
    if name == SMALL_RESNET:
        return space_of(digits_resnet)
    if name == SMALL_MOBILENET:
        return space_of(smoke)
    return ofa_jax.get_space(name, num_classes=10)


@pytest.fixture
def small_resnet():
    return space_of(digits_resnet)


def space_of(config):
    return from_dict(config.get_config().to_dict()).search_space(10)


@pytest.fixture
def tiny():
    return ofa_jax.get_space(TINY, num_classes=10)
