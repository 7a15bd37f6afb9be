"""`serve-app check`: each problem that would keep the service from starting is one line."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from serve_app.cli import check as module
from serve_app.cli.main import main
from serve_app.config import read_environment
from serve_app.deployments.embedded_stores import lock_data_folder
from serve_app.errors import InvalidConfiguration, Problem

ROOT = Path(__file__).parent.parent.parent
SERVE_APP = str(Path(sys.executable).with_name("serve-app"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, an environment that says nothing, and Python's path as it was afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in read_environment():
        if name.startswith("SERVE_APP_"):
            monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def project(here: Path, free_port: int) -> Path:
    """The project as it is shipped, on a free port."""
    shutil.copytree(ROOT / "configs", here / "configs")
    text = (ROOT / "serve_config.yaml").read_text(encoding="utf-8")
    assert "port: 8000" in text
    (here / "serve_config.yaml").write_text(text.replace("port: 8000", f"port: {free_port}"), encoding="utf-8")
    return here


def check(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["check", *arguments])
    assert "Traceback" not in result.output
    return result


def problems(*arguments: str) -> list[str]:
    result = check(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    return result.stderr.splitlines()


def test_the_project_as_shipped_is_ready_to_start(project: Path, free_port: int) -> None:
    result = check()
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        "ok: serve_config.yaml with configs/local.yaml",
        "  model      offline (built-in, for tests; SERVE_APP_MODEL chooses another)",
        "  tools      order_query, knowledge_search",
        "  knowledge  lexical",
        "  redis      embedded",
        "  milvus     embedded",
        f"  data       {project}/.serve_app",
        f"  address    http://127.0.0.1:{free_port}",
    ]


def test_a_file_of_settings_is_checked_alone(project: Path, free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)), lock_data_folder(project / ".serve_app", timeout_s=0):
        result = check("configs/local.yaml")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("ok: configs/local.yaml\n")
    assert "address" not in result.stdout


def test_a_taken_port_and_a_held_folder_are_told(project: Path, free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)), lock_data_folder(project / ".serve_app", timeout_s=0):
        taken, held = problems()
    assert taken.startswith("serve_config.yaml:")
    assert f": http_options.port: port {free_port} of 127.0.0.1 is in use. " in taken
    assert held.startswith(f"{project}/.serve_app: the data folder is held by another service")


@pytest.mark.parametrize("listens", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("wanted", ["127.0.0.1", "0.0.0.0"])
def test_a_port_is_taken_on_whichever_address(project: Path, free_port: int, listens: str, wanted: str) -> None:
    file = project / "serve_config.yaml"
    file.write_text(file.read_text().replace("host: 127.0.0.1", f"host: {wanted}"))
    with socket.socket() as listening:  # as Serve's own proxies do
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((listens, free_port))
        listening.listen()
        assert "is in use" in problems()[0]


@pytest.mark.parametrize("host", ["0.0.0.0", "'::'", "192.0.2.1", "example.com"])
def test_without_keys_no_address_but_loopback_is_listened_on(project: Path, host: str) -> None:
    file = project / "serve_config.yaml"
    file.write_text(file.read_text().replace("host: 127.0.0.1", f"host: {host}"))
    line = problems()[-1]
    assert line.startswith("serve_config.yaml:")
    warning = f"{host.strip(chr(39))} can be reached from other machines, and no API keys are required. "
    assert f": http_options.host: {warning}" in line
    assert line.endswith("access: {admin_key_env: NAME}, or listen on 127.0.0.1")


def test_a_serve_file_that_names_no_host_has_serve_listen_on_all_addresses(project: Path) -> None:
    file = project / "serve_config.yaml"
    file.write_text(file.read_text().replace("  host: 127.0.0.1", "  #"))
    assert "http_options: 0.0.0.0 can be reached" in problems()[0].replace(".host", "")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "'::1'", "localhost", "0.0.0.0"])
def test_loopback_needs_no_keys_and_with_keys_any_address_will_do(
    project: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    file = project / "serve_config.yaml"
    file.write_text(file.read_text().replace("host: 127.0.0.1", f"host: {host}"))
    if host == "0.0.0.0":
        with_keys(project, monkeypatch)
    assert check().exit_code == 0


def with_keys(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (project / "configs" / "local.yaml").open("a") as settings:
        settings.write("access: {admin_key_env: SERVE_APP_ADMIN_KEY}\n")
    monkeypatch.setenv("SERVE_APP_ADMIN_KEY", "k" * 32)


def test_haproxy_listens_on_all_addresses_and_so_needs_keys(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.serve._private.constants.RAY_SERVE_ENABLE_HA_PROXY", True)
    [line] = problems()
    assert line.startswith("RAY_SERVE_ENABLE_HA_PROXY: Serve listens on all addresses in HAProxy mode, and no API keys")
    with_keys(project, monkeypatch)
    assert check().exit_code == 0


def test_a_port_whose_connections_just_closed_is_free(project: Path, free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)) as listening:
        client = socket.create_connection(("127.0.0.1", free_port))
        accepted, _ = listening.accept()
        accepted.close()  # this side closes first and waits
        client.close()
    assert check().exit_code == 0


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ("{host: 127.0.0.1, port: 99999}", "http_options.port: 99999 is not a port."),
        ("{host: 192.0.2.1, port: 8000}", "nothing can listen on 192.0.2.1:8000 ("),
        ("{host: 127.0.0.1, port: many}", "http_options.port: should be a valid integer"),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_told(
    project: Path, options: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_keys(project, monkeypatch)
    serve_file = f"http_options: {options}\napplications: [{{import_path: 'serve_app.app:build'}}]\n"
    (project / "serve_config.yaml").write_text(serve_file)
    (line,) = problems()
    assert line.startswith("serve_config.yaml:1: ")
    assert what in line


def test_a_group_of_tools_needs_an_entry_of_its_own(project: Path, free_port: int) -> None:
    (project / "team_tools.py").write_text("async def tool(number: str) -> str:\n    'Look up.'\n")
    (project / "team.yaml").write_text("tools:\n  a: {function: 'team_tools:tool'}\n  groups: {risky: {tools: [a]}}\n")
    serve = (
        f"http_options: {{host: 127.0.0.1, port: {free_port}}}\napplications:\n  - import_path: serve_app.app:build\n"
        "    args: {config: team.yaml}\n    deployments:\n      - name: Tools-"
    )
    (project / "serve_config.yaml").write_text(serve + "rsky\n")
    printed = problems()
    assert [line.split(". ")[0] for line in printed] == [
        "serve_config.yaml:6: applications.0.deployments.0.name: there is no deployment Tools-rsky",
        "serve_config.yaml:5: applications.0.deployments: no entry for Tools-risky, which tools.groups requires",
    ]
    (project / "serve_config.yaml").write_text(serve + "risky\n")
    assert check().exit_code == 0


def test_an_ingress_that_takes_fewer_requests_than_admission_lets_in_is_told(project: Path) -> None:
    settings = project / "configs" / "local.yaml"
    written = settings.read_text(encoding="utf-8")
    settings.write_text(written + "\nadmission: {max_turns: 1800, max_waiting: 160}\n")
    result = check()
    assert result.exit_code == 1
    assert "2000 requests are fewer than admission.max_turns" in result.output
    assert "Make it at least 2010" in result.output
    settings.write_text(written.replace("  turn_timeout_s: 60", "  turn_timeout_s: 60\n  max_runs: 1900"))
    result = check()
    assert "2000 requests are fewer than agent.max_runs" in result.output
    assert "1300 requests are fewer than agent.max_runs and 50 others" in result.output


def test_the_commented_example_of_a_group_fits_together(project: Path) -> None:
    _uncomment(project / "configs" / "local.yaml", "search_tickets:", "risky:")
    (line,) = problems()
    assert "no entry for Tools-risky" in line
    _uncomment(project / "serve_config.yaml", "- name: Tools-risky", "autoscaling_config:")
    result = check()
    assert result.exit_code == 0, result.output


def _uncomment(file: Path, first: str, last: str) -> None:
    """Take the `#` from the line that begins with `first` and those after it, to the one that begins with `last`."""
    lines = file.read_text(encoding="utf-8").splitlines()
    begins = next(place for place, line in enumerate(lines) if line.strip().startswith(f"# {first}"))
    ends = next(place for place in range(begins, len(lines)) if lines[place].strip().startswith(f"#   {last}"))
    lines[begins : ends + 1] = [line.replace("# ", "", 1) for line in lines[begins : ends + 1]]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_the_serve_file_and_what_it_names_are_told_together(project: Path, free_port: int) -> None:
    (project / "serve_config.yaml").write_text(
        f"""\
proxy_locaton: EveryNode
http_options: {{host: 127.0.0.1, port: {free_port}, prot: 1}}
applications:
  - import_path: serve_app.app:build
    route_prefx: /
    args: {{config: team.yaml, confg: x}}
    deployments:
      - name: Agnt
        max_ongoing_request: 3
        max_queued_requests: x
      - name: Tools
        graceful_shutdown_timeout_s: -1
        autoscaling_config: {{min_replicas: 4, max_replicas: 2, target: 1}}
"""
    )
    (project / "team.yaml").write_text("modle: {name: offline}\n")
    ignored = "unknown key, which Serve would ignore"
    expected = [
        "serve_config.yaml:10: applications.0.deployments.0.max_queued_requests: should be a valid integer.",
        "serve_config.yaml:12: applications.0.deployments.1.graceful_shutdown_timeout_s: should be greater than",
        f"serve_config.yaml:1: proxy_locaton: {ignored}. Did you mean 'proxy_location'?",
        f"serve_config.yaml:2: http_options.prot: {ignored}. Did you mean 'port'?",
        f"serve_config.yaml:5: applications.0.route_prefx: {ignored}. Did you mean 'route_prefix'?",
        f"serve_config.yaml:6: applications.0.args.confg: {ignored}. Did you mean 'config'?",
        "serve_config.yaml:8: applications.0.deployments.0.name: there is no deployment Agnt. Did you mean 'Agent'?",
        f"serve_config.yaml:9: applications.0.deployments.0.max_ongoing_request: {ignored}.",
        "serve_config.yaml:13: applications.0.deployments.1.autoscaling_config: max_replicas (2) must be",
        f"serve_config.yaml:13: applications.0.deployments.1.autoscaling_config.target: {ignored}.",
        "team.yaml:1: modle: unknown key. Did you mean 'model'?",
    ]
    printed = problems()
    assert len(printed) == len(expected), printed
    for line, beginning in zip(printed, expected, strict=True):
        assert line.startswith(beginning)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("applications: []", "applications: no application of this service."),
        ("applications: 3", "applications: should be a valid list."),
        ("applications: [{import_path: 'other:app'}]", "no application of this service."),
        ("http_options: {port: 8000}", "applications: Field required."),
        ("http_options: 5\napplications: []", "http_options: should be a valid dictionary"),
        ("applications: [{import_path: 'serve_app.app:build', deployments: [3]}]", "a section does not have the form"),
        ("applications: [", "serve_config.yaml:2: not valid YAML ("),
        ("- 1", "serve_config.yaml: not a mapping of sections."),
    ],
)
def test_a_broken_serve_file_is_told(project: Path, text: str, what: str) -> None:
    (project / "serve_config.yaml").write_text(text + "\n")
    assert what in problems()[0]


def test_a_missing_file_is_told(here: Path) -> None:
    lines = [f"{name}: no such file. The path is relative to the working directory, {here}" for name in ("a", "b")]
    assert problems("a") + problems("b") == lines
    assert problems() == [lines[0].replace("a:", "serve_config.yaml:", 1)]


def test_the_environment_names_another_file_of_settings(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "team.yaml").write_text("redis: 'redis://:s3cret@127.0.0.1:1/0'\nwindow: 3\n")
    monkeypatch.setenv("SERVE_APP_CONFIG", "team.yaml")
    for arguments in ([], ["configs/local.yaml"]):
        printed = problems(*arguments)
        assert printed[0] == "team.yaml:2: window: unknown key. Did you mean 'memory.window'?"
        assert printed[1].startswith("team.yaml:1: redis.url: Redis does not answer (")
        assert "s3cret" not in " ".join(printed)


def test_a_password_in_an_address_is_not_shown(redis_url: str, here: Path) -> None:
    url = redis_url.replace("redis://", "redis://default:@")
    (here / "team.yaml").write_text(f"redis: '{url}'\n")
    result = check("team.yaml")
    assert f"  redis      {redis_url}\n" in result.stdout, result.stderr


def test_a_tool_of_the_team_is_found_beside_the_configuration(here: Path) -> None:
    (here / "our_tools.py").write_text("async def lookup(number: str) -> str:\n    'Look up.'\n    return number\n")
    (here / "team.yaml").write_text("tools: {lookup: {function: 'our_tools:lookup'}}\n")
    assert str(here) not in sys.path
    result = check("team.yaml")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "  tools      lookup, knowledge_search\n" in result.stdout


def test_the_command_ends_with_lines_and_status_one(here: Path, free_port: int) -> None:
    (here / "broken.py").write_text("raise RuntimeError('at import')\n")
    (here / "team.yaml").write_text(
        f"modle: 1\nredis: redis://127.0.0.1:{free_port}\ntools: {{a: {{function: 'broken:a'}}, b: {{function: c}}}}\n"
    )
    variables = {**os.environ, "SERVE_APP_MODEL": "groq:llama", "SERVE_APP_MODEL_API_KEY": ""}
    command = [SERVE_APP, "check", "team.yaml"]
    result = subprocess.run(command, cwd=here, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert [line.split(". ")[0].split(" (")[0] for line in result.stderr.splitlines()] == [
        "team.yaml:3: tools.b.function: not of the form module:function",
        "team.yaml:1: modle: unknown key",
        "SERVE_APP_MODEL_API_KEY: the environment variable SERVE_APP_MODEL_API_KEY is empty",
        "SERVE_APP_MODEL: the package of groq:llama is not installed",
        "team.yaml:3: tools.a: broken:a does not import",
        "team.yaml:2: redis.url: Redis does not answer",
    ]


def test_the_help_names_the_commands_in_the_order_of_a_first_round() -> None:
    output = CliRunner().invoke(main, ["--help"]).output
    positions = [output.index(f"\n  {name} ") for name in ("check", "ingest", "chat")]
    assert positions == sorted(positions)
    assert CliRunner().invoke(main, ["--version"]).output.startswith("serve-app, version ")


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["chek"])
    assert result.exit_code == 2
    assert "No such command 'chek'" in result.output


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ZeroDivisionError("by zero"), "Error: unexpected ZeroDivisionError: by zero; 'serve-app --debug …' shows"),
        (InvalidConfiguration((Problem("a", "b", "c"),)), "Error: a: b. c"),
    ],
)
def test_an_error_that_nobody_expected_is_a_line(error: Exception, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(module, "check", failing)
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 1
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1


def test_debug_shows_where_an_unexpected_error_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def failing() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "check", failing)
    with pytest.raises(ZeroDivisionError):
        CliRunner().invoke(main, ["--debug", "check"], catch_exceptions=False)


def test_the_command_starts_without_what_it_does_not_use() -> None:
    code = (
        "import sys; from serve_app.cli.main import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert not {"ray", "langchain", "langchain_core", "pymilvus", "redis"} & set(output.split())
