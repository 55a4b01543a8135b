"""Draw docs/images/templates.png, the templates as a web console shows them: `python docs/draw_templates.py`.

Their cards in the catalogue, the panel and the form that each opens, and what is said when it is done.
Chromium takes the picture of a page that is made of the template files alone; with a FILE.html, that page is
all that is written. The picture carries the page's digest, by which a test sees that it is too old.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path
from typing import Any

from generate_templates import read
from PIL import Image
from PIL.PngImagePlugin import PngInfo

PICTURE = Path(__file__).resolve().parent / "images" / "templates.png"
WIDTH = 1720
DIGEST = "page-sha256"  # the name of a text in the picture
COLOURS = 64  # enough for text on white; a third of the size
EXAMPLE = {"IPYTHON_CLUSTER_LABEL": "mkqzv", "IPYTHON_USER_LABEL": "tbhod"}
_STYLE = """\
* { box-sizing: border-box; }
body { margin: 0; padding: 28px 32px 32px; background: #f2f2f2; color: #151515;
  font: 14px/1.5 "Red Hat Text", "Noto Sans", "DejaVu Sans", Arial, sans-serif; }
h1 { font-size: 20px; font-weight: 600; margin: 0 0 14px; }
h2 { font-size: 15px; font-weight: 600; margin: 0; line-height: 1.35; }
h3 { font-size: 13px; font-weight: 600; margin: 14px 0 2px; }
p { margin: 0; }
.row { display: grid; grid-template-columns: repeat(4, 1fr); gap: 20px; margin-bottom: 28px; }
.row > * { background: #fff; border: 1px solid #d2d2d2; border-radius: 6px; padding: 18px; min-width: 0; }
.head { display: flex; gap: 12px; align-items: flex-start; margin-bottom: 12px; }
.icon { flex: none; width: 44px; height: 44px; border-radius: 8px; border: 1px solid #d2d2d2; }
.by, .help { color: #6a6e73; font-size: 12px; }
.tags { margin-top: 12px; display: flex; flex-wrap: wrap; gap: 5px; }
.tags span { font-size: 11px; background: #e7f1fa; color: #004080; border-radius: 10px; padding: 1px 9px; }
.link { color: #06c; overflow-wrap: anywhere; }
.field { margin-top: 14px; }
.field b { font-weight: 600; font-size: 13px; }
.value { border: 1px solid #c7c7c7; border-bottom-color: #6a6e73; border-radius: 3px; height: 32px;
  margin: 3px 0; padding: 4px 9px; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.empty { color: #8a8d90; }
.create { display: inline-block; margin-top: 18px; background: #06c; color: #fff; border-radius: 3px;
  padding: 5px 16px; }
pre { font: 12px/1.5 "Red Hat Mono", "Noto Sans Mono", "DejaVu Sans Mono", monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; margin: 0; }
.row > .said { background: #151515; color: #e0e0e0; border-color: #151515; }
"""
_ICON = """\
<svg class="icon" viewBox="0 0 44 44" role="img" aria-label="icon-python">\
<path d="M22 7c-6 0-7 2-7 5v4h8v2H11c-3 0-5 2-5 7s2 7 5 7h3v-5c0-3 2-5 5-5h8c3 0 4-2 4-4v-6c0-3-3-5-9-5z" \
fill="#3776ab"/><path d="M22 38c6 0 7-2 7-5v-3h-8v-2h12c3 0 5-2 5-7s-2-7-5-7h-3v5c0 3-2 5-5 5h-6c-4 0-4 3-4\
 4v5c0 3 2 5 7 5z" fill="#ffd343"/><circle cx="19" cy="11" r="1.6" fill="#fff"/>\
<circle cx="25" cy="34" r="1.6" fill="#fff"/></svg>"""


def html() -> str:
    """The page that the picture shows."""
    templates = read()
    rows = [
        ("In the catalogue", _card),
        ("What a card opens", _panel),
        ("The form", _form),
        ("What oc new-app says at the end", _said),
    ]
    parts = [
        f'<h1>{title}</h1><div class="row">{"".join(map(draw, templates))}</div>' for title, draw in rows
    ]
    head = f'<meta charset="utf-8"><title>Templates</title>\n<style>\n{_STYLE}</style>\n'
    # Its height becomes its title, for who takes the picture.
    script = "<script>document.title = document.body.offsetHeight</script>\n"
    return f'<!doctype html><html lang="en">{head}' + "\n".join(parts) + f"\n{script}</html>\n"


def _note(template: dict[str, Any], name: str) -> str:
    return escape(template["metadata"]["annotations"][name])


def _title(template: dict[str, Any]) -> str:
    name = _note(template, "openshift.io/display-name")
    by = _note(template, "openshift.io/provider-display-name")
    return f'<div class="head">{_ICON}<div><h2>{name}</h2><p class="by">Provided by {by}</p></div></div>'


def _card(template: dict[str, Any]) -> str:
    tags = "".join(f"<span>{tag}</span>" for tag in _note(template, "tags").split(","))
    return (
        f'<div>{_title(template)}<p>{_note(template, "description")}</p><div class="tags">{tags}</div></div>'
    )


def _panel(template: dict[str, Any]) -> str:
    links = [
        f'<h3>{title}</h3><p class="link">{_note(template, f"openshift.io/{name}-url")}</p>'
        for title, name in (("Documentation", "documentation"), ("Support", "support"))
    ]
    text = f"<h3>Description</h3><p>{_note(template, 'openshift.io/long-description')}</p>"
    return f"<div>{_title(template)}{text}{''.join(links)}</div>"


def _form(template: dict[str, Any]) -> str:
    fields = []
    for one in template["parameters"]:
        value, kind = one.get("value", ""), "value"
        if "generate" in one:
            value, kind = "(generated if empty)", "value empty"
        fields.append(
            f'<div class="field"><b>{escape(one["displayName"])}</b><div class="{kind}">{escape(value)}</div>'
            f'<p class="help">{escape(one["description"])}</p></div>'
        )
    return f'<div><h2>Instantiate Template</h2>{"".join(fields)}<div class="create">Create</div></div>'


def _said(template: dict[str, Any]) -> str:
    text = template["message"]
    for name, value in EXAMPLE.items():
        text = text.replace(f"${{{name}}}", value)
    return f'<div class="said"><pre>{escape(text)}</pre></div>'


# -- the picture ---------------------------------------------------------------------------------


def digest() -> str:
    """Of the page as it would be drawn now."""
    return hashlib.sha256(html().encode()).hexdigest()


def drawn() -> str:
    """Of the page that the picture shows."""
    with Image.open(PICTURE) as picture:
        found: str = picture.info[DIGEST]
        return found


def draw() -> None:
    """Have Chromium take the picture."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("chromium is not there: it takes the picture")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    with tempfile.TemporaryDirectory() as folder:
        flags.append(f"--user-data-dir={folder}/profile")
        page, picture = Path(folder) / "templates.html", Path(folder) / "templates.png"
        page.write_text(html(), encoding="utf-8")

        def run(*words: str) -> str:
            command = [browser, *flags, *words, page.as_uri()]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout

        dom = run(f"--window-size={WIDTH},1000", "--dump-dom")
        height = re.search(r"<title>(\d+)</title>", dom)
        assert height, "the page did not say how high it is"
        run(f"--window-size={WIDTH},{height[1]}", f"--screenshot={picture}")
        told = PngInfo()
        told.add_text(DIGEST, digest())
        with Image.open(picture) as taken:
            taken.quantize(COLOURS, dither=Image.Dither.NONE).save(PICTURE, pnginfo=told, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(html(), encoding="utf-8")
    else:
        draw()
