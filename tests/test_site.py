"""The documentation site: built strictly, with links to the repository's files and a whole API."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from configs import imagenet_mbv3
from docs import pictures
from ofa_jax import get_space

pytest.importorskip("mkdocs", reason="the site needs the extra docs")

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("hooks", REPOSITORY / "docs/hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(directory, out):
    # Not -q: with it, strict overlooks warnings.
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", out],
        cwd=directory, capture_output=True, text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},  # of Material, about a MkDocs to come
    )  # fmt: skip


@pytest.fixture
def checkout(tmp_path):
    """A copy of the site's sources whose docs/ may be changed."""
    directory = tmp_path / "checkout"
    shutil.copytree(REPOSITORY / "docs", directory / "docs")
    for name in ("CHANGELOG.md", "CONTRIBUTING.md", "README.md", "configs", "mkdocs.yml",
                 "ofa_jax", "pyproject.toml"):  # fmt: skip
        (directory / name).symlink_to(REPOSITORY / name)
    return directory


def test_the_site_is_built_with_no_warning(tmp_path):
    done = build(REPOSITORY, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not re.search("WARNING|ERROR", done.stderr)
    linked = (tmp_path / "spaces/index.html").read_text()
    assert 'href="../source/configs/digits_resnet.py/"' in linked
    assert "def get_config" in page_text(tmp_path / "source/configs/digits_resnet.py/index.html")
    api = (tmp_path / "reference/ofa_jax/index.html").read_text()
    assert 'id="ofa_jax.SearchSpace.arch_from_dict"' in api
    assert not (tmp_path / "hooks.py").exists()


def page_text(path):
    """A page without its tags."""
    return "".join(part.split(">")[-1] for part in path.read_text().split("<"))


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("[x](nowhere.md)", "'nowhere.md'"),
        ("[x](data.md#nowhere)", "'#nowhere'"),
        ("[x](../configs/nowhere.py)", "'../configs/nowhere.py'"),
    ],
)
def test_a_broken_link_fails_the_build(checkout, tmp_path, link, message):
    with (checkout / "docs/index.md").open("a") as page:
        page.write(f"\n{link}\n")
    done = build(checkout, tmp_path / "site")
    assert done.returncode == 1
    assert message in done.stderr


def test_an_undocumented_symbol_fails_the_build(checkout, tmp_path):
    page = checkout / "docs/reference/search.md"
    page.write_text(page.read_text().replace("::: ofa_jax.search.evolve\n", ""))
    done = build(checkout, tmp_path / "site")
    assert done.returncode == 1
    assert "docs/reference/ lacks ofa_jax.search.evolve: add a line" in done.stderr


def test_the_public_symbols_are_those_of_the_package(hooks):
    import ofa_jax

    inside = ("interop", "search")
    own = [name for name in ofa_jax.__all__ if name not in inside and name != "__version__"]
    expected = {f"ofa_jax.{name}" for name in own}
    for name in inside:
        expected |= {f"ofa_jax.{name}.{own}" for own in getattr(ofa_jax, name).__all__}
    assert hooks.public_symbols() == expected
    assert len(expected) > 25


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("docs/spaces.md", "../configs/digits.py", "source/configs/digits.py.md"),
        ("docs/spaces.md", "../CONTRIBUTING.md", "source/CONTRIBUTING.md"),
        ("docs/spaces.md", "data.md#x", "data.md#x"),
        ("docs/reference/search.md", "../search.md", "../search.md"),
        ("CONTRIBUTING.md", "docs/internals.md", "../internals.md"),
        ("docs/spaces.md", "https://example.org/x.md", "https://example.org/x.md"),
        ("docs/spaces.md", "nowhere.md", "nowhere.md"),
    ],
)
def test_links_to_the_repository_lead_to_its_pages(hooks, page, link, expected):
    code = f"```\n[x]({link})\n```"
    found = hooks.with_site_links(f"[x]({link})\n\n{code}\n", page)
    assert found == f"[x]({expected})\n\n{code}\n"


def test_the_picture_of_the_curriculum_shows_what_the_config_opens():
    space = get_space("ofa_mbv3_d234_e346_k357_w1.0")
    found = pictures.opened(imagenet_mbv3.get_config(), space)
    assert list(found) == ["full", "kernel", "depth1", "depth2", "expand1", "expand2"]
    assert found["full"] == {"kernels": (7,), "depths": (4,), "expands": (6,)}
    assert found["depth1"] == {"kernels": (3, 5, 7), "depths": (3, 4), "expands": (6,)}
    assert found["expand2"]["expands"] == (3, 4, 6)


def test_each_picture_is_drawn():
    shapes = {"masks": 49 + 24 + 4, "curriculum": 6 * 3 * 3, "subnet": 5 * 4}
    for name, count in shapes.items():
        figure = getattr(pictures, name)()
        assert len(figure.axes[0].patches) == count, name
