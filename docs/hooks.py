"""What the documentation site needs beyond docs/: files of the repository, and a check of the API.

A page may link to any text file of the repository, as `../configs/digits.py`: the file becomes a
page of the site, below source/, and the link leads there. The build fails where a public symbol of
the package has no entry in docs/reference/.
"""

import ast
import posixpath
import re
import tomllib
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(\]\()([^)\s#]+)")  # of Markdown, without its anchor
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml", ".json": "json", ".html": "html"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Takes the addresses from pyproject.toml; an undocumented symbol ends the build."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    urls = project.get("urls", {})
    config.repo_url = urls.get("Repository")
    config.site_url = urls.get("Documentation")
    if missing := sorted(public_symbols() - documented_symbols()):
        raise PluginError(f"docs/reference/ lacks {', '.join(missing)}: add a line `::: NAME`")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the repository's files that pages link to, and those that these link to."""
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    while waiting:
        page = waiting.pop()
        for target in linked(page):
            uri = site_uri(target)
            if uri.startswith("source/") and files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, content=as_page(target)))
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links to files of the repository into links to their pages."""
    uri = page.file.src_uri
    source = uri.removeprefix("source/")
    if source == uri:
        return with_site_links(markdown, f"docs/{uri}")
    path = source if source in ("CONTRIBUTING.md", "CHANGELOG.md") else source.removesuffix(".md")
    return with_site_links(markdown, path) if path.endswith(".md") else markdown


def public_symbols(package: str = "ofa_jax") -> set[str]:
    """The full names in the `__all__` of a package, and of its packages that are in it."""
    names: set[str] = set()
    for name in exported(package):
        if name.startswith("__"):
            continue
        full = f"{package}.{name}"
        is_package = (REPOSITORY / full.replace(".", "/") / "__init__.py").exists()
        names |= public_symbols(full) if is_package else {full}
    return names


def exported(package: str) -> list[str]:
    """The `__all__` of a package, without importing it."""
    text = (REPOSITORY / package.replace(".", "/") / "__init__.py").read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    raise PluginError(f"{package} has no __all__")


def documented_symbols() -> set[str]:
    """What the pages of docs/reference/ document, by their lines `::: NAME`."""
    pages = (REPOSITORY / "docs/reference").glob("*.md")
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    return set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))


def linked(page: str) -> list[str]:
    """The files of the repository that a Markdown file of it links to."""
    if not page.endswith(".md"):
        return []
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    targets = [repository_path(target, page) for _, target in LINK.findall(CODE.sub("", text))]
    return [target for target in targets if target and (REPOSITORY / target).is_file()]


def repository_path(target: str, page: str) -> str:
    """A link's target from the repository's root; empty for an address."""
    if re.match(r"\w+:", target):
        return ""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), target))


def site_uri(path: str) -> str:
    """Where a file of the repository is among the site's sources."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"source/{path}" if path.endswith(".md") else f"source/{path}.md"


def as_page(path: str) -> str:
    """A file of the repository as Markdown."""
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    language = LANGUAGES.get(Path(path).suffix, "text")
    return f"# {path}\n\n````{language}\n{text.rstrip()}\n````\n"


def with_site_links(markdown: str, path: str) -> str:
    """The Markdown of a file of the repository, its links as they are on the site."""
    directory = posixpath.dirname(site_uri(path))

    def moved(match: re.Match[str]) -> str:
        target = repository_path(match[2], path)
        if not target or not (REPOSITORY / target).is_file():
            return match[0]  # a broken one is reported by the strict build
        return match[1] + posixpath.relpath(site_uri(target), directory or ".")

    return "".join(
        part if i % 2 else LINK.sub(moved, part)
        for i, part in enumerate(re.split(f"({CODE.pattern})", markdown, flags=CODE.flags))
    )
