"""What a tool returned, as text for the model."""

from __future__ import annotations

import json
import logging
from typing import Any

from pydantic import BaseModel

from serve_app.values.sanitize import sanitize_json

logger = logging.getLogger(__name__)

UNTOLD = "(it was done, and returned something that cannot be put into words)"


def text_of(value: Any) -> str:
    """Returns a function's value as text: a string as it is, anything else as JSON, as well as it can be said.

    The deed is done by now, so nothing that goes wrong here is raised.
    """
    try:
        said = sanitize_json(value)
        if isinstance(said, str):
            return said
        separators = (",", ":") if isinstance(value, BaseModel) else None
        return json.dumps(said, ensure_ascii=False, separators=separators)
    except BaseException as error:  # an object's own methods may even leave the program
        logger.warning("result_not_told", exc_info=error)
        return UNTOLD
