"""Fonts for prompts in any script: DejaVu Sans, which Matplotlib brings along, and behind it what this machine has.

A text of DejaVu's characters (Latin, Greek, Cyrillic, Hebrew, Arabic and more) is drawn the same on every machine.
Characters that it lacks, Chinese, Japanese, Korean and emoji above all, come from the first installed font that has an
outline of them. Where there is none the text is drawn with their names or code points in their place: no boxes.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.common.progress import plural

if TYPE_CHECKING:
    from matplotlib.ft2font import FT2Font
    from PIL.ImageDraw import ImageDraw

# Those that draw most of a script in an upright book weight are tried first, in this order; then all others.
PREFERRED = (
    "notosanscjk", "sourcehansans", "notosansjp", "notosanssc", "hiragino", "pingfang", "yugoth", "msyh", "msgothic",
    "malgun", "applesdgothic", "wqy", "droidsansfallback", "ipaexg", "ipag", "takao", "vlgothic",
    "notoemoji", "notosanssymbols", "symbola", "seguiemj", "seguisym", "notosans", "arialuni", "unifont",
)  # fmt: skip
NORMAL = 400  # weight
SLANTED_OR_HEAVY = re.compile("bold|black|heavy|thin|light|italic|oblique|mono|serif|condensed")
DROPPED = re.compile("[\u200b\u2060\ufe00-\ufe0f\U000e0100-\U000e01ef]")  # no width, variation selectors
JOINING = "\u200c\u200d\u200e\u200f"  # they shape their neighbours, and stay with the one before


def installed() -> list[Path]:
    """The font files of this machine, those that serve best first."""
    from matplotlib.font_manager import findSystemFonts

    def order(path: Path) -> tuple[bool, int, str]:
        name = re.sub("[^a-z0-9]", "", path.stem.lower())
        place = next((index for index, each in enumerate(PREFERRED) if each in name), len(PREFERRED))
        return SLANTED_OR_HEAVY.search(name) is not None, place, str(path)

    return sorted(map(Path, findSystemFonts()), key=order)


def own(bold: bool = False) -> Path:
    """DejaVu Sans, the file that Matplotlib brings along."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return Path(matplotlib.get_data_path(), "fonts", "ttf", name)


@cache
def face(path: Path) -> tuple[FT2Font, frozenset[int]] | None:
    """A font file and the code points that it names; None for one that cannot be read or has no outlines."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
        return (font, frozenset(font.get_charmap())) if font.scalable else None
    except Exception:  # a file of any kind may lie among the fonts; FreeType's errors have no class of their own
        return None


def draws(path: Path, character: str) -> bool:
    """Whether a font file has an outline of the character; a font of coloured pictures names it and has none."""
    found = face(path)
    if found is None or ord(character) not in found[1]:
        return False
    try:
        found[0].set_size(32, 72)
        glyph = found[0].load_char(ord(character))
    except Exception:  # as above
        return False
    return character.isspace() or (glyph.width > 0 and glyph.height > 0)


@cache
def font_of(character: str) -> Path | None:
    """The file that draws a character, None where no font does."""
    if character.isspace() or ord(character) in known_to_own():
        return own()
    return next((path for path in _candidates() if draws(path, character)), None)


@cache
def known_to_own() -> frozenset[int]:
    found = face(own())
    assert found is not None
    return found[1]


@cache
def _candidates() -> list[Path]:
    return installed()


def forget() -> None:
    """Look at the machine's fonts anew."""
    font_of.cache_clear()
    _candidates.cache_clear()


def legible(text: str) -> str:
    """The text with what no font draws told by name (emoji, signs) or by code point (letters).

    >>> legible("a lake"), named("\N{BEACH WITH UMBRELLA}"), named("富")
    ('a lake', '[beach with umbrella]', '\\\\u5bcc')
    """
    text = DROPPED.sub("", text)
    kept = [each if font_of(each) is not None else named(each) for each in text]
    return re.sub(r"\]\[", "] [", "".join(kept))


def named(character: str) -> str:
    """What stands for a character that cannot be drawn."""
    name = unicodedata.name(character, "")
    if name and unicodedata.category(character)[0] == "S":
        return f"[{name.lower()}]"
    return character.encode("ascii", "backslashreplace").decode()


def tell_missing(texts: Iterable[str]) -> None:
    """One line on stderr where these texts hold characters that no font draws."""
    missing = sorted({each for text in texts for each in DROPPED.sub("", text) if font_of(each) is None})
    if missing:
        some = ", ".join(f"U+{ord(each):04X}" for each in missing[:5]) + (", …" if len(missing) > 5 else "")
        count = plural(len(missing), "character")
        print(
            f"report: no font here draws {count} of the prompts ({some}): pictures name them; "
            "install fonts that do, such as Noto Sans CJK and Noto Emoji (not in colour), and run stage=report",
            file=sys.stderr,
        )


def families(texts: Iterable[str]) -> list[str]:
    """Matplotlib's `font.family` that draws these texts: DejaVu Sans, and the fallbacks that they take."""
    from matplotlib.font_manager import FontEntry, fontManager

    files = dict.fromkeys(font_of(each) for text in texts for each in text)
    names = ["DejaVu Sans"]
    for path in files:
        found = None if path in (None, own()) else face(path)
        if found is None:
            continue
        name = found[0].family_name
        if not any(entry.name == name and entry.weight == NORMAL for entry in fontManager.ttflist):
            # By hand: a font of one weight, whichever, serves as the normal one without a warning at every text.
            fontManager.ttflist.append(FontEntry(fname=str(path), name=name, weight=NORMAL))
        names.append(name)
    return list(dict.fromkeys(names))


def runs(text: str) -> list[tuple[Path, str]]:
    """The text in pieces of one font each; `text` is legible."""
    pieces: list[tuple[Path, str]] = []
    for character in text:
        path = font_of(character) or own()
        if pieces and (pieces[-1][0] == path or character.isspace() or character in JOINING):
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + character)
        else:
            pieces.append((path, character))
    return pieces


class Pen:
    """Writes lines of any script with Pillow, in one size; in DejaVu Sans where that has the characters."""

    def __init__(self, size: int, bold: bool = False) -> None:
        """size: pixels. bold: DejaVu's bold face; fallbacks have one weight."""
        from PIL import ImageFont

        self.size, self.bold = size, bold
        self.base = ImageFont.truetype(own(bold), size)

    def _fonts(self, text: str) -> Sequence[tuple[object, str]]:
        from PIL import ImageFont

        pieces = runs(legible(text))
        return [(self.base if path == own() else ImageFont.truetype(path, self.size), piece) for path, piece in pieces]

    def length(self, text: str) -> int:
        """Pixels that the text takes."""
        return int(sum(font.getlength(piece) for font, piece in self._fonts(text)))  # type: ignore[attr-defined]

    def write(self, draw: ImageDraw, corner: tuple[float, float], text: str, fill: str) -> None:
        """Write a line whose upper left corner is (x, y), as Pillow counts it."""
        left, baseline = corner[0], corner[1] + self.base.getmetrics()[0]
        for font, piece in self._fonts(text):
            draw.text((left, baseline), piece, fill=fill, font=font, anchor="ls")
            left += font.getlength(piece)  # type: ignore[attr-defined]
