"""Writes small PDF files for tests: lines of text on pages, and an outline."""

from __future__ import annotations

Outline = list[tuple[int, str]]
"""The page's index and the title of each entry, all on one level."""


def make_pdf(pages: list[list[str]], outline: Outline = (), *, title: str = "", encrypted: bool = False) -> bytes:
    """The bytes of a PDF in Helvetica, its outline pointing to the tops of its pages."""
    first_page = 5
    kids = " ".join(f"{first_page + 2 * n} 0 R" for n in range(len(pages)))
    first_entry = first_page + 2 * len(pages)
    last_entry = first_entry + len(outline) - 1
    objects = [
        "<< /Type /Catalog /Pages 2 0 R /Outlines 4 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        f"<< /Type /Outlines /First {first_entry} 0 R /Last {last_entry} 0 R >>" if outline else "<< >>",
    ]
    for n, lines in enumerate(pages):
        text = " T* ".join(f"({line}) Tj" for line in lines)
        content = f"BT /F1 10 Tf 14 TL 50 800 Td {text} ET"
        page = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {first_page + 2 * n + 1} 0 R >>"
        )
        objects += [page, f"<< /Length {len(content)} >>\nstream\n{content}\nendstream"]
    for n, (page, entry) in enumerate(outline):
        following = f"/Next {first_entry + n + 1} 0 R" if n + 1 < len(outline) else ""
        target = f"[{first_page + 2 * page} 0 R /XYZ 0 842 0]"
        objects.append(f"<< /Title ({entry}) /Parent 4 0 R /Dest {target} {following} >>")
    info = len(objects) + 1
    objects.append(f"<< /Title ({title}) >>")
    trailer = f"/Root 1 0 R /Info {info} 0 R"
    if encrypted:
        secret = "<" + "5a" * 32 + ">"
        objects.append(f"<< /Filter /Standard /V 2 /R 3 /Length 128 /P -4 /O {secret} /U {secret} >>")
        trailer += f" /Encrypt {len(objects)} 0 R /ID [<00> <00>]"
    return _join_objects(objects, trailer)


def _join_objects(objects: list[str], trailer: str) -> bytes:
    written = b"%PDF-1.4\n"
    places = []
    for number, content in enumerate(objects, start=1):
        places.append(len(written))
        written += f"{number} 0 obj\n{content}\nendobj\n".encode("latin-1")
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    size = len(objects) + 1
    table = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer << /Size {size} {trailer} >>\n"
    return written + f"{table}startxref\n{len(written)}\n%%EOF\n".encode("latin-1")
