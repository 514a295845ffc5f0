"""What mkdocs does beside rendering docs/: a page for each shipped recipe, and links that leave this folder lead to what they name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "recipes"
OUTSIDE = re.compile(r"\]\(\.\./(recipes/[\w/.-]+\.yaml|melcli/assets/[\w/.-]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add a page a recipe, a list of them, and the files of the package that pages link to."""
    rows = [
        "# Recipes",
        "",
        "What `melcli train NAME` takes; `melcli recipes copy NAME` makes one's own.",
        "",
        "| name | what it is |",
        "| --- | --- |",
    ]
    for path in sorted(RECIPES.rglob("*.yaml")):
        name = path.relative_to(RECIPES).with_suffix("").as_posix()
        text = path.read_text(encoding="utf-8")
        summary = text.partition("\n")[0].lstrip("# ").replace("|", "\\|")
        rows.append(f"| [{name}](recipes/{name}.md) | {summary} |")
        page = f"---\ntitle: {name}\nsearch:\n  boost: 0.5\n---\n# Recipe {name}\n\n```yaml\n{text}```\n"
        files.append(File.generated(config, f"recipes/{name}.md", content=page))
    files.append(File.generated(config, "recipes.md", content="\n".join(rows) + "\n"))
    linked = {found for file in files.documentation_pages() if file.generated_by is None for found in OUTSIDE.findall(file.content_string)}
    for name in sorted(found for found in linked if found.startswith("melcli/")):
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links of the repository become links of the site: ../recipes/digits.yaml is the page recipes/digits.md."""
    return OUTSIDE.sub(lambda found: f"]({found[1].removesuffix('.yaml')}.md)" if found[1].startswith("recipes/") else f"]({found[1]})", markdown)
