"""A viewer as one HTML file: the same script and style as the widget, with the data beside them.

The page's own security policy forbids it to load anything, so it works offline or not at all. Knows nothing of what
the state means.
"""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from typing import Any

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src blob: data:; base-uri 'none'; form-action 'none'"
)
FOLDER = Path(__file__).parent
TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body class="flowlib-page">
<main id="viewer"></main>
<noscript>This page shows its pictures with a script of its own; please allow JavaScript.</noscript>
<script type="application/json" id="state">{state}</script>
<script type="module">
{script}
openPage(render, document.getElementById("viewer"), JSON.parse(document.getElementById("state").textContent));
</script>
</body>
</html>
"""


def joined(*names: str) -> str:
    """Scripts or styles of this folder as one text: what the viewers share first, then their own. No bundler is needed,
    because only the last script exports anything and none imports."""
    return "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in names)


def build(title: str, state: dict[str, Any], script: str, style: str) -> str:
    """The whole page.

    Args:
        title: plain text for the browser's tab.
        state: the widget's traits by name; bytes become {"base64": …}.
        script: what the widget runs in a notebook.
        style: its style sheet.
    """
    encoded = {name: _encoded(value) for name, value in state.items()}
    return TEMPLATE.format(
        policy=html.escape(POLICY),
        title=html.escape(title),
        style=style,
        # "<" can't end the element early once it is told as an escape of JSON's own
        state=json.dumps(encoded, allow_nan=False).replace("<", "\\u003c"),
        script=script,
    )


def _encoded(value: Any) -> Any:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
