"""Make links work in the site that work in the repository.

Pages in ``docs/`` link to pictures, pages and code outside of it, as ``../benchmarks/README.md``.
Each file that is linked becomes a file of the site: a page stays one, a picture is copied, code
and folders are shown on a page. README.md is the front page.
"""

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(\]\(|<img src=\")([^)\s\"#]+)")
LANGUAGES = {".py": "python", ".sh": "bash", ".yaml": "yaml", ".toml": "toml"}
FROM_THE_TOP = {"index.md": ROOT / "README.md", "contributing.md": ROOT / "CONTRIBUTING.md"}
"""Pages of the site that are files at the top of the repository."""
OUTSIDE = "repository"
"""Folder of the site for what lies outside of ``docs/``."""


def on_files(files: Files, config: Any) -> Files:
    """Add every file that a page links to, and what those pages link to in turn."""
    for uri, path in FROM_THE_TOP.items():
        files.append(_file(path, uri, config))
    waiting = [file.src_uri for file in files.documentation_pages()]
    while waiting:
        page = waiting.pop()
        for _, link in LINK.findall(_text(_source(page))):
            target = _target(page, link)
            if target is None or (uri := _uri(target)) in files.src_uris:
                continue
            file = _file(target, uri, config)
            files.append(file)
            if target.suffix == ".md":
                waiting.append(uri)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links that leave ``docs/`` into links to the files that ``on_files`` added."""
    here = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        target = _target(here, match[2])
        if target is None:
            return match[0]
        return match[1] + posixpath.relpath(_uri(target), posixpath.dirname(here) or ".")

    return LINK.sub(moved, markdown)


def _source(uri: str) -> Path:
    """Return where the file of the site at `uri` comes from."""
    if uri in FROM_THE_TOP:
        return FROM_THE_TOP[uri]
    prefix = OUTSIDE + "/"
    return ROOT / uri.removeprefix(prefix) if uri.startswith(prefix) else ROOT / "docs" / uri


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.suffix == ".md" and path.is_file() else ""


def _target(page: str, link: str) -> Path | None:
    """Return the file of the repository that `link` means on `page`; None if it needs no change."""
    if re.match(r"[a-z]+:|/", link):
        return None
    target = (_source(page).parent / link).resolve()
    if not target.exists() or not target.is_relative_to(ROOT):
        return None  # MkDocs says so.
    if target.is_relative_to(ROOT / "docs") and _source(page).is_relative_to(ROOT / "docs"):
        return None
    return target


def _uri(target: Path) -> str:
    """Return the place in the site of a file of the repository."""
    path = target.relative_to(ROOT)
    if path.parts[0] == "docs":
        return path.relative_to("docs").as_posix()
    for uri, page in FROM_THE_TOP.items():
        if target == page:
            return uri
    shown = target.is_dir() or target.suffix not in (".md", ".png", ".svg")
    return f"{OUTSIDE}/{path.as_posix()}" + (".md" if shown else "")


def _file(target: Path, uri: str, config: Any) -> File:
    if uri.endswith(".md") and target.suffix != ".md":
        file = File.generated(config, uri, content=_shown(target))
    else:
        file = File.generated(config, uri, abs_src_path=str(target))
    if uri.startswith(OUTSIDE):
        file.inclusion = InclusionLevel.NOT_IN_NAV
    return file


def _shown(target: Path) -> str:
    """Return a page that shows a file, or the files of a folder."""
    if target.is_file():
        return _block(target, 1)
    shown = sorted(path for path in target.iterdir() if path.suffix in (*LANGUAGES, ".ipynb"))
    return "\n".join([f"# `{target.relative_to(ROOT)}`", *(_block(path, 2) for path in shown)])


def _block(path: Path, level: int) -> str:
    if path.suffix == ".ipynb":
        return _notebook(path, level)
    name = path.name if level > 1 else path.relative_to(ROOT)
    code = path.read_text(encoding="utf-8")
    return f"{'#' * level} `{name}`\n\n````{LANGUAGES.get(path.suffix, '')}\n{code}````\n"


def _notebook(path: Path, level: int) -> str:
    """Return the cells of a notebook, whose title becomes a heading of `level`."""
    shown = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code":
            shown.append(f"````python\n{text}\n````")
        else:
            shown.append(re.sub(r"^#", "#" * level, text, flags=re.MULTILINE))
    return "\n\n".join(shown) + "\n"
