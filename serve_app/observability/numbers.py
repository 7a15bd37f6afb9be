"""Which runs of digits are a phone number, an identity number or a bank card?

A run is cut into groups, and a number is a few neighbouring groups whose lengths, first digits and check digit fit its
kind; so that dates, times, order numbers, versions and the ids of runs stay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PHONE, ID, CARD = "[phone]", "[id]", "[card]"

RUN = re.compile(r"\d[\d .()\-]{6,}+[Xx]?")
"""Digits that may hold a number, with what may stand between them."""
_GROUP = re.compile(r"\d++(?:(?<=\d{17})[Xx])?")
_GAPS = {"", " ", "-"}
_PHONE_GAP = re.compile(r"[ .()\-]{0,3}")
_MOST_GROUPS = 6
SHORTEST_INTERNATIONAL, SHORTEST, LONGEST = 8, 10, 19
"""Digits of a number."""
SHORTEST_FIRST, SHORTEST_OF_CARD = 2, 3
"""Digits of a group: of the first one, and of any on a card."""

_MOBILE = re.compile(r"(?:86|0086)?1[3-9]\d{9}")
_MOBILE_SHAPES = {(11,), (3, 4, 4), (3, 8), (7, 4), (3, 3, 5), (4, 4, 3), (4, 3, 4), (5, 6), (6, 5)}
_LANDLINE_SHAPES = {(3, 8), (4, 7), (4, 8)}
_INTERNATIONAL = re.compile(r"1\d{10}|86\d{9,11}|(?!86)[2-9]\d{7,14}")
"""E.164; the countries whose numbers have one length are held to it, so that no neighbour is taken in."""
_BIRTH = r"(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
_REGION = r"(?:1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3]|91)\d{4}"
_ID_18 = re.compile(rf"{_REGION}(?:19|20)\d\d{_BIRTH}\d{{3}}[\dX]")
_ID_15 = re.compile(rf"{_REGION}\d\d{_BIRTH}\d{{3}}")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]|2[2-7])\d{14}"  # Mastercard, Mir
    r"|3[47]\d{13}|3(?:0[0-59]|[689]\d)\d{11,16}"  # American Express, Diners Club
    r"|35\d{14,17}"  # JCB
    r"|6\d{12,18}|81\d{14,17}|5[06-9]\d{11,17}"  # UnionPay, Discover, Maestro
    r"|9558\d{12,15}"  # ICBC's cards of before UnionPay
)
_IDENTIFIER = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{16,}", re.IGNORECASE)
_AROUND = 64


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A few neighbouring groups."""

    digits: str
    shape: tuple[int, ...]
    gaps: frozenset[str]
    international: bool
    """Whether a plus stands before them."""


def masked(run: re.Match[str]) -> str:
    """The run with a mask in the place of each number."""
    text = run.string
    groups = [match.span() for match in _GROUP.finditer(text, *run.span())]
    pieces, written, place = [], run.start(), 0
    while place < len(groups):
        found = _found(text, groups, place)
        if found is None:
            place += 1
            continue
        last, mask = found
        pieces += [text[written : groups[place][0]], mask]
        written, place = groups[last][1], last + 1
    return "".join([*pieces, text[written : run.end()]])


def _found(text: str, groups: list[tuple[int, int]], place: int) -> tuple[int, str] | None:
    """The last group of the longest number that begins with the group at `place`, and its mask."""
    for last, candidate in reversed(list(_candidates(text, groups, place))):
        mask = _kind(candidate)
        if mask and not _identifies(text, groups[place][0], groups[last][1]):
            return last, mask
    return None


def _candidates(text: str, groups: list[tuple[int, int]], place: int) -> Iterator[tuple[int, _Candidate]]:
    begin, end = groups[place]
    international = _follows_plus(text, begin)
    if not international and end - begin < SHORTEST_FIRST:
        return
    shortest = SHORTEST_INTERNATIONAL if international else SHORTEST
    length, gaps = 0, set()
    for last in range(place, min(place + _MOST_GROUPS, len(groups))):
        start, end = groups[last]
        if last > place:
            gap = text[groups[last - 1][1] : start]
            if gap not in _GAPS and not (international and _PHONE_GAP.fullmatch(gap)):
                return
            gaps.add(gap)
        length += end - start
        if length > LONGEST:
            return
        if length >= shortest:
            parts = [text[slice(*group)] for group in groups[place : last + 1]]
            yield last, _Candidate(_plain("".join(parts)), tuple(map(len, parts)), frozenset(gaps), international)


def _plain(digits: str) -> str:
    """In the digits of ASCII, whichever were written."""
    return digits.upper() if digits.isascii() else "".join(each if each in "Xx" else str(int(each)) for each in digits)


def _kind(number: _Candidate) -> str | None:
    digits, shape = number.digits, number.shape
    if number.international and _INTERNATIONAL.fullmatch(digits):
        return PHONE
    if _is_mobile(digits, shape) or _is_landline(number):
        return PHONE
    if shape in {(18,), (6, 8, 4)} and _ID_18.fullmatch(digits) and _check_of_id(digits) == digits[17]:
        return ID
    if shape == (15,) and _ID_15.fullmatch(digits):
        return ID
    if min(shape) >= SHORTEST_OF_CARD and _CARD.fullmatch(digits) and _luhn(digits):
        return CARD
    return None


def _is_mobile(digits: str, shape: tuple[int, ...]) -> bool:
    if not _MOBILE.fullmatch(digits):
        return False
    prefix = len(digits) - 11
    if prefix == 0:
        return shape in _MOBILE_SHAPES
    glued = (shape[0] - prefix, *shape[1:])
    return (shape[0] == prefix and shape[1:] in _MOBILE_SHAPES) or glued in _MOBILE_SHAPES


def _is_landline(number: _Candidate) -> bool:
    return number.gaps == {"-"} and number.shape in _LANDLINE_SHAPES and number.digits.startswith("0")


def _check_of_id(digits: str) -> str:
    """ISO 7064, MOD 11-2."""
    total = sum(int(digit) * weight for digit, weight in zip(digits, _WEIGHTS, strict=False))
    return "10X98765432"[total % 11]


def _luhn(digits: str) -> bool:
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def _follows_plus(text: str, begin: int) -> bool:
    """Whether a plus that belongs to no other word stands before `begin`."""
    if begin == 0 or text[begin - 1] != "+":
        return False
    before = text[begin - 2 : begin - 1] if begin > 1 else ""
    return not (before.isascii() and before.isalnum())


def _identifies(text: str, begin: int, end: int) -> bool:
    """Whether the digits are a part of a hexadecimal id."""
    start = max(0, begin - _AROUND)
    around = text[start : end + _AROUND]
    return any(
        start + each.start() <= begin and end <= start + each.end() and (each.end() - each.start() > end - begin)
        for each in _IDENTIFIER.finditer(around)
    )
