"""Loads a class by its import path, such as `package.module:Class`."""

from __future__ import annotations

import re
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING
from warnings import catch_warnings, filterwarnings

from serve_app.errors import InvalidConfiguration, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET_OPTION = re.compile(r"(?i)key|token|secret|password|credential")
"""Names of options that hold a secret. A settings file must not contain them."""

_FORM = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+:[A-Za-z_]\w*|[A-Za-z_]\w*:[A-Z]\w*")
_FORM_HELP = "Write it package.module:Class, such as langchain_community.embeddings:DashScopeEmbeddings"


def is_class_path(name: str) -> bool:
    """Whether `name` is an import path, in contrast to `provider:model`.

    In an import path, the module contains a dot or the class begins with a capital letter.
    """
    return _FORM.fullmatch(name) is not None


def load_class(path: str, base: type | None = None, where: str = "configuration") -> type:
    """Import and return the class at `path`, a subclass of `base`.

    Raises:
        InvalidConfiguration: the path is malformed, or the module, the class or a package that they need is missing.
            `where` is the name of the setting, for the message.
    """
    module_name, _, class_name = path.partition(":")
    if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", path):
        raise _invalid(where, f"{path!r} is no import path", _FORM_HELP)
    with silence_community_notice():
        try:
            module = import_module(module_name)
        except ModuleNotFoundError as error:
            missing = (error.name or module_name).partition(".")[0]
            if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
                raise _invalid(
                    where, f"there is no module {error.name}", f"Install its package. {_FORM_HELP}"
                ) from error
            raise _invalid(where, f"{path} needs the package {missing}", f"pip install {missing}") from error
        except Exception as error:  # the import of a module may raise anything
            raise _invalid(where, f"{module_name} does not import ({_first_line(error)})", _FORM_HELP) from error
        try:
            found = getattr(module, class_name)
        except AttributeError as error:
            raise _invalid(where, f"{module_name} has no class {class_name}", _FORM_HELP) from error
        except Exception as error:  # langchain_community imports a class at its first use
            raise _invalid(where, f"{path} does not import ({_first_line(error)})", "Install what it needs") from error
    if not isinstance(found, type):
        raise _invalid(where, f"{path} is not a class", _FORM_HELP)
    if base is not None and not issubclass(found, base):
        raise _invalid(where, f"{path} is no {base.__name__}", f"Name a subclass of {base.__module__}.{base.__name__}")
    return found


@contextmanager
def silence_community_notice() -> Iterator[None]:
    """Silence the notice of langchain-community that its parts move to other packages."""
    with catch_warnings():
        filterwarnings("ignore", message=r"(?s).*langchain.community", category=DeprecationWarning)
        filterwarnings("ignore", category=DeprecationWarning, module=r"langchain_(community|classic)(\.|$)")
        yield


def _invalid(where: str, what: str, fix: str) -> InvalidConfiguration:
    return InvalidConfiguration((Problem(where, what, fix),))


def _first_line(error: Exception) -> str:
    line = str(error).strip().split("\n", 1)[0].rstrip(".")
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
