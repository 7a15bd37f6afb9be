"""What does a client prefer? RFC 7240."""

import re
from collections.abc import Iterable
from typing import Annotated

from fastapi import Depends, Header
from starlette.requests import Request

HEADER = "Prefer"
RESPOND_ASYNC = "respond-async"

_QUOTED = r'"(?:[^"\\]|\\.)*"?'
_BETWEEN_COMMAS = re.compile(rf'(?:[^,"]|{_QUOTED})+')
_BEFORE_PARAMETERS = re.compile(rf'(?:[^;"]|{_QUOTED})+')
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ESCAPED = re.compile(r"\\(.)")


def preferences(values: Iterable[str]) -> dict[str, str]:
    """Each preference by its name in lower case, with its value, `""` where it has none; parameters are left out.

    Of two with one name the first counts, and what is not of the RFC's form is passed over: both as the RFC says.
    """
    found: dict[str, str] = {}
    for preference in _BETWEEN_COMMAS.findall(",".join(values)):
        without_parameters = _BEFORE_PARAMETERS.match(preference)
        name, _, value = without_parameters[0].partition("=") if without_parameters else ("", "", "")
        if _TOKEN.fullmatch(name.strip()):
            found.setdefault(name.strip().lower(), _unquoted(value.strip()))
    return found


def _unquoted(value: str) -> str:
    return _ESCAPED.sub(r"\1", value[1:-1]) if value[:1] == '"' == value[-1:] and len(value) > 1 else value


_PreferHeader = Annotated[
    str,
    Header(
        alias=HEADER,
        default_factory=str,
        description="`respond-async` begins the run and does not wait for it: the response is a 202 with the run. "
        "Other preferences are ignored.",
    ),
]


def _responds_async(request: Request, _first: _PreferHeader) -> bool:
    return preferences(request.headers.getlist(HEADER)).get(RESPOND_ASYNC) == ""


RespondsAsync = Annotated[bool, Depends(_responds_async)]
