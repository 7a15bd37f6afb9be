"""What the manual names is there: routes, codes, reasons, metrics, alerts, settings with their defaults, files."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml
from manual_pages import PAGES, ROOT
from pydantic import BaseModel

from serve_app.config import Settings
from serve_app.http.app import ROUTES
from serve_app.http.errors import STATUS_BY_CODE
from serve_app.observability.metric_catalogue import ALL

if TYPE_CHECKING:
    from pathlib import Path

DOCS = ROOT / "serve_app" / "docs"
GENERATED = DOCS / "configuration.md"
WRITTEN = [*(page for page in PAGES if page != GENERATED), ROOT / "tests" / "benchmarks" / "README.md"]
NAMES_OF_OTHERS = {"LANGSMITH_OTEL_ENABLED", "RAY_AUTH_MODE", "RAY_SERVE_THROUGHPUT_OPTIMIZED", "ray_serve_app"}
"""Names that only Ray and LangSmith know."""
PLACEHOLDERS = {"RUN_ID", "track_parcel"}
"""Names that stand for a user's own."""
MADE_AT_RUN_TIME = {".serve_app/", ".env", "logs/serve/", "my_tools.py", "loadtest.json"}
"""Files that are not in the repository."""
_CODE = re.compile(r"`([^`\n]+)`")


def _read(path: Path) -> str:
    """The text of a page without its code blocks, which other tests run."""
    return re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def _rows(page: str, heading: str) -> list[list[str]]:
    """The rows of the table of a page whose first heading begins so."""
    text = _read(DOCS / page)
    table = text[text.index(f"| {heading}") :].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in table.splitlines()[2:]]


@cache
def _sources() -> str:
    files = [
        *(path for path in (ROOT / "serve_app").rglob("*.py")),
        *(path for path in (ROOT / "configs").rglob("*.y*ml")),
        *(path for path in (ROOT / "configs").rglob("*.conf")),
        *(path for path in (ROOT / "tests" / "benchmarks").glob("*.py")),
        *(ROOT / name for name in ("serve_config.yaml", ".env.example", "configs/orders.json", "configs/ray.env")),
    ]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def _routes() -> set[tuple[str, str]]:
    """The method and path of each route, without the names of the path's parameters."""
    return {
        (method, _without_names(route.path))
        for module in ROUTES
        for route in module.router.routes
        for method in route.methods
    }


def _without_names(path: str) -> str:
    return re.sub(r"{\w+}", "{}", path)


def test_the_table_of_routes_is_the_routes() -> None:
    """A method without a path has the path before it; `…` stands for the row's first path."""
    documented = set()
    for cell, *_ in _rows("http-api.md", "Route"):
        first = path = ""
        for code in _CODE.findall(cell):
            method, _, written = code.partition(" ")
            path = first + written.removeprefix("…") if written.startswith("…") else written or path
            first = first or path
            documented.add((method, _without_names(path)))
    assert documented == _routes()


def test_every_route_in_a_sentence_is_one_of_the_routes() -> None:
    unknown = [
        f"{page.name}: {method} {path}"
        for page in WRITTEN
        for method, path in re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[\w/{}]+)`", _read(page))
        if (method, _without_names(path)) not in _routes()
    ]
    assert unknown == []


def test_the_table_of_errors_has_codes_with_their_status() -> None:
    wrong, listed = [], set()
    for statuses, codes, _ in _rows("http-api.md", "Status"):
        for code in _CODE.findall(codes):
            listed.add(code)
            if str(STATUS_BY_CODE.get(code)) not in statuses:
                wrong.append(f"{code} is {STATUS_BY_CODE.get(code)}, not {statuses}")
    assert wrong == []
    of_the_server = {code for code, status in STATUS_BY_CODE.items() if status in {401, 409, 429, 500, 503, 504}}
    assert of_the_server - listed == {"invalid_configuration", "unavailable"}, "no response has one of these"


def test_the_table_of_reasons_has_reasons_of_errors() -> None:
    reasons = [code for row in _rows("http-api.md", "`reason`") for code in _CODE.findall(row[0])]
    assert len(reasons) >= 7
    assert [reason for reason in reasons if f'"{reason}"' not in _sources() and reason not in STATUS_BY_CODE] == []


def test_the_table_of_metrics_is_the_catalogue() -> None:
    listed = {f"serve_app_{name}" for row in _rows("metrics-and-alerts.md", "Group") for name in _CODE.findall(row[1])}
    assert listed == {metric.name for metric in ALL}


def test_the_table_of_alerts_is_the_rules() -> None:
    rules = yaml.safe_load((ROOT / "configs/prometheus/rules/alerts.yml").read_text(encoding="utf-8"))
    real = {rule["alert"]: rule for group in rules["groups"] for rule in group["rules"]}
    listed: dict[str, str] = {}
    for alerts, _, _, severities in _rows("metrics-and-alerts.md", "Alert"):
        names, levels = _CODE.findall(alerts), severities.split(" · ")
        listed |= {f"ServeApp{name}": levels[min(place, len(levels) - 1)] for place, name in enumerate(names)}
    assert listed == {name: rule["labels"]["severity"] for name, rule in real.items()}


def test_every_setting_that_a_page_names_has_the_default_that_it_says() -> None:
    sections = set(Settings.model_fields) - {"tools"}
    wrong = []
    for page in WRITTEN:
        for name, written in re.findall(r"`([a-z_]+(?:\.\w+)+)`(?: \(([\d,.]+)(?=[,;)]))?", _read(page)):
            section = name.split(".")[0]
            if section not in sections or name.endswith((".py", ".json")):
                continue
            found = _default(Settings, name.split("."))
            if found is _MISSING:
                wrong.append(f"{page.name}: there is no setting {name}")
            elif written and float(written.replace(",", "")) != found:
                wrong.append(f"{page.name}: {name} is {found}, not {written}")
    assert wrong == []


_MISSING = object()


def _default(model: type[BaseModel], path: list[str]) -> Any:
    """The default of a setting; `_MISSING` if there is no such setting."""
    name, *rest = path
    if name not in model.model_fields:
        return _MISSING
    found = model.model_fields[name].get_default(call_default_factory=True)
    if not rest:
        return found
    if isinstance(found, BaseModel):
        return _default(type(found), rest)
    sections = [each for each in _models_in(model.model_fields[name].annotation) if rest[0] in each.model_fields]
    return _default(sections[0], rest) if sections else _MISSING


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [each for part in getattr(annotation, "__args__", ()) for each in _models_in(part)]


def test_every_file_and_folder_that_a_page_names_is_there() -> None:
    """A path begins at the repository, at `serve_app/`, at a folder of it, or at the page."""
    folders = [each for each in (ROOT / "serve_app").iterdir() if each.is_dir()]
    missing = []
    for page in WRITTEN:
        codes = _CODE.findall(_read(page))
        in_commands = [word for code in codes for word in code.split() if re.match(r"(configs|tests|serve_app)/", word)]
        for name in {*codes, *in_commands}:
            if not re.fullmatch(r"[\w.-]+(/[\w.*-]+)*(/|\.(py|md|ya?ml|json|txt))", name) or name in MADE_AT_RUN_TIME:
                continue
            if not any(
                any(place.glob(name.rstrip("/"))) for place in (ROOT, ROOT / "serve_app", page.parent, *folders)
            ):
                missing.append(f"{page.name}: {name}")
    assert missing == []


def test_every_identifier_in_code_font_is_in_the_code() -> None:
    """An identifier has an underscore or a dot: a setting, a code, a field, a metric, a variable, an event."""
    words = set(re.findall(r"\w+", _sources())) | NAMES_OF_OTHERS | PLACEHOLDERS
    unknown = []
    for page in WRITTEN:
        for code in _CODE.findall(_read(page)):
            if re.search(r"\.(py|md)\b|://", code):
                continue
            for name in re.findall(r"[A-Za-z]\w*_\w+|\b[a-z]+\.[a-z_]+\b", code):
                last = name.rpartition(".")[2].rstrip("_")
                if not words & {last, f"serve_app_{last}", last.removeprefix("ray_")}:
                    unknown.append(f"{page.name}: {code}")
    assert unknown == []


def test_every_log_event_of_an_example_is_logged() -> None:
    events = set()
    for page in WRITTEN:
        text = page.read_text(encoding="utf-8")
        events |= set(re.findall(r"^\d\d:\d\d:\d\d\.\d{3}  \w+(?: \w{8})?\s+(\w+)", text, re.MULTILINE))
    assert {"run_ended"} <= events
    assert [event for event in events if f'"{event}"' not in _sources()] == []


def test_the_layers_of_the_architecture_are_those_that_import_linter_checks() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [contract] = [each for each in project["tool"]["importlinter"]["contracts"] if each["type"] == "layers"]
    written = " > ".join(f"`{layer}`" for layer in contract["layers"])
    assert written in _read(DOCS / "architecture.md").replace("\n", " ")
