"""Mathematics as MathML, which browsers draw themselves: no script, no network.

docutils makes it of TeX. The font is STIX Two Math, for systems that have no font for mathematics:
the package `ziamath` carries it, and what the pages need of it is cut out. Its licence, OFL 1.1, is
named in the font.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.errors import SphinxError

FONT = "STIXTwoMath-Regular.ttf"
# Latin, Greek, punctuation, letterlike, arrows, operators, brackets, alphabets of mathematics.
BLOCKS = (
    (0x20, 0x250), (0x2B0, 0x400), (0x2000, 0x2070), (0x20D0, 0x2150), (0x2190, 0x2300),
    (0x2308, 0x232B), (0x239B, 0x23B8), (0x27C0, 0x27F0), (0x2A00, 0x2B00), (0x1D400, 0x1D800),
)  # fmt: skip


# The names of functions, around which TeX leaves some space and docutils none: after a factor, and
# before an argument without brackets.
NAME = r"<mi>(?:exp|log|max|min|tanh)</mi>"
WITH_BASE = rf"<msub>\s*{NAME}\s*<m[in]>\w+</m[in]>\s*</msub>"
APPLY = r"<mo>(?:&ApplyFunction;|\u2061)</mo>"
AFTER_FACTOR = re.compile(rf"(</m(?:i|n|sub|sup|subsup|row|frac)>)(?=\s*(?:{NAME}|{WITH_BASE}))")
BARE = re.compile(rf"({NAME}\s*{APPLY}|{WITH_BASE})(?!\s*(?:<mrow[^>]*>\s*)*<mo)")
# Bars are as high as letters.
BAR = re.compile(r"<mo(?: class=\"math(?:open|close)\")?>(?=[|\u2016]</mo>)")
SPACE = r'\1<mspace width="0.17em"/>'


def markup(node: nodes.Element, as_block: bool) -> str:
    try:
        result = str(tex2mathml(node.astext(), as_block=as_block))
    except Exception as error:
        raise SphinxError(f"mathematics that cannot be read: {node.astext()!r}: {error}") from error
    return BAR.sub('<mo stretchy="false">', BARE.sub(SPACE, AFTER_FACTOR.sub(SPACE, result)))


def inline(self: Any, node: nodes.math) -> None:
    self.body.append(f'<span class="math notranslate">{markup(node, False)}</span>')
    raise nodes.SkipNode


def block(self: Any, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math notranslate">{markup(node, True)}</div>\n')
    raise nodes.SkipNode


def write_font(app: Sphinx) -> None:
    from fontTools import subset
    from fontTools.ttLib import TTFont

    target = Path(app.outdir, "_static", "math.woff")
    if app.builder.format != "html" or target.exists():
        return
    options = subset.Options(flavor="woff", layout_features=["*"], name_IDs=["*"])
    font = TTFont(str(files("ziamath") / "fonts" / FONT), lazy=True)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=[code for start, end in BLOCKS for code in range(start, end)])
    cutter.subset(font)
    target.parent.mkdir(parents=True, exist_ok=True)
    font.flavor = "woff"
    font.save(target)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.connect("builder-inited", write_font)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
