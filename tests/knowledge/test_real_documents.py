"""Real documents that nobody here wrote are read right or reported; none is garbled silently.

The documents are fetched by apt and pip, and stay out of the repository: Debian's debmake-doc in six languages, and the
test pages of chardet in forty encodings. Known are their encodings, by which each is judged.
"""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import tarfile
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import docx
import pytest

from serve_app.knowledge.document_reader import clean_text, read_document
from serve_app.knowledge.formats.html import to_markdown
from serve_app.knowledge.formats.text_decoding import UnreadableDocument

if TYPE_CHECKING:
    from pathlib import Path

CODECS = {
    "Big5": "big5hkscs", "CP932": "cp932", "SHIFT_JIS": "cp932", "CP949": "cp949", "EUC-KR": "cp949",
    "EUC-JP": "euc_jp",
    "GB2312": "gb18030", "IBM855": "cp855", "IBM866": "cp866", "Johab": "johab", "KOI8-R": "koi8_r", "ascii": "ascii",
    "MacCyrillic": "mac_cyrillic", "MacRoman": "mac_roman", "TIS-620": "cp874", "iso-2022-jp": "iso2022_jp_ext",
    "iso-2022-kr": "iso2022_kr", "UTF-16": "utf-16", "UTF-16BE": "utf-16-be", "UTF-16LE": "utf-16-le",
    "UTF-32": "utf-32", "UTF-32BE": "utf-32-be", "UTF-32LE": "utf-32-le", "utf-8": "utf-8", "utf-8-sig": "utf-8-sig",
    "iso-8859-1": "cp1252",
}  # fmt: skip
"""Of chardet's folders; those of the form iso-8859-2-polish name their codec."""

TRANSCODED = {
    "de": ("cp1252",), "en": ("utf-16",), "ja": ("cp932", "euc_jp", "iso2022_jp_ext"),
    "ru": ("cp1251", "koi8_r", "iso8859_5", "cp866"), "zh-cn": ("gb18030",), "zh-tw": ("big5hkscs",),
}  # fmt: skip


def run(*command: str, folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=250, check=False)
    if done.returncode:
        pytest.skip(f"{' '.join(command)} does not work here: {done.stderr[-200:]}")


@pytest.fixture(scope="module")
def manuals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of debmake-doc."""
    folder = tmp_path_factory.mktemp("debian")
    run("apt-get", "download", "debmake-doc", folder=folder)
    run("dpkg-deb", "-x", next(folder.glob("*.deb")).name, "tree", folder=folder)
    return folder / "tree" / "usr" / "share" / "doc" / "debmake-doc"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of chardet's test pages."""
    folder = tmp_path_factory.mktemp("chardet")
    source = ["--no-deps", "--no-binary", "chardet", "chardet==5.2.0"]
    run(sys.executable, "-m", "pip", "download", "--quiet", *source, folder=folder)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / "chardet-5.2.0" / "tests"


def verdict(path: Path, wanted: str | None) -> str:
    """`right`, `reported` or `garbled`; one character of a hundred may differ, as damaged bytes do."""
    try:
        found = read_document(path, path.name).text
    except UnreadableDocument as error:
        return f"reported: {str(error)[:60]}"
    if wanted is None:
        return "garbled"
    wanted = clean_text(wanted)
    beyond = sum(not character.isascii() for character in wanted)
    differing = sum(one != other for one, other in zip(found, wanted, strict=False))
    same = abs(len(found) - len(wanted)) <= beyond // 100 and differing <= max(1, beyond // 100)
    return "right" if same else "garbled"


def words(text: str) -> Counter[str]:
    """Words, and pairs of characters where words have no spaces between them."""
    return Counter(re.findall(r"[^\W\d_\u2e80-\uffff]{2,}|[\u3040-\u9fff](?=[\u3040-\u9fff])", text))


def print_table(outcomes: dict[str, Counter[str]]) -> None:
    for kind, counted in sorted(outcomes.items()):
        print(f"{kind:<26}", ", ".join(f"{count} {what}" for what, count in counted.most_common()))


@pytest.mark.long
def test_pages_in_forty_encodings_are_read_right_or_reported(pages: Path, tmp_path: Path) -> None:
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    wrong = []
    for path in sorted(pages.glob("*/*")):
        named = re.match(r"(?:iso-8859|windows)-\d+", path.parent.name)
        codec = CODECS.get(path.parent.name) or (named[0].replace("windows-", "cp") if named else None)
        content = path.read_bytes()
        text = content.decode(codec, "replace") if codec else None  # EUC-TW is known to nobody
        is_page = path.suffix == ".html"
        copy = tmp_path / f"{path.stem}{'.html' if is_page else '.txt'}"
        copy.write_bytes(content)
        found = verdict(copy, to_markdown(text)[1] if is_page and text else text)
        outcomes[path.parent.name][found] += 1
        wrong += [(path.parent.name, path.name)] if found == "garbled" else []
    print_table(outcomes)
    total = Counter(what.split(":")[0] for counted in outcomes.values() for what in counted.elements())
    print(total)
    assert wrong == []
    assert total["right"] >= 400


@pytest.mark.long
def test_manuals_in_six_languages_are_read_right(manuals: Path, tmp_path: Path) -> None:
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    for packed in sorted(manuals.glob("*.txt.gz")):
        language = packed.name.split(".")[1]
        text = gzip.decompress(packed.read_bytes()).decode()
        for codec in ("utf-8", *TRANSCODED[language]):
            plain = tmp_path / f"{language}.txt"
            plain.write_bytes(text.encode(codec, "replace"))
            outcomes[f"{language} {codec} text"][verdict(plain, text.encode(codec, "replace").decode(codec))] += 1
        word = docx.Document()
        for paragraph in text.split("\n\n")[:200]:
            word.add_paragraph(" ".join(clean_text(paragraph).split()))
        word.save(str(tmp_path / f"{language}.docx"))
        samples = {
            f"{language} docx": [tmp_path / f"{language}.docx"],
            f"{language} pdf": [*manuals.glob(f"*.{language}.pdf")],
        }
        samples[f"{language} html"] = sorted((manuals / "html").glob(f"*.{language}.html"))
        known = words(text)
        for kind, paths in samples.items():
            for path in paths:
                found = words(read_document(path, path.name).text)
                strange = (
                    (found - known).total()
                    if path.suffix != ".html"
                    else sum((Counter({w: c for w, c in found.items() if w not in known})).values())
                )
                outcomes[kind][
                    "right" if strange * 10 <= found.total() else f"garbled {path.name} {strange}/{found.total()}"
                ] += 1
    print_table(outcomes)
    counted = sum(outcomes.values(), Counter())
    print(counted)
    assert set(counted) == {"right"}
