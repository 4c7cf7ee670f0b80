"""The table of settings and what is made from it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import capicorn
import pytest
from capicorn.config import LOGGING_CONFIG, Config, UnsupportedSettingError
from capicorn.listeners import parse_address
from capicorn.settings import BY_NAME, LATER, POSITIONAL, SETTINGS, markdown, typed
from click.testing import CliRunner

FLAGS = [flag for setting in SETTINGS for flag in setting.flags]


def usage_error(*words: str, env: dict[str, str] | None = None) -> str:
    result = CliRunner().invoke(capicorn.main, ["no_such_module:app", *words], env=env)
    assert result.exit_code == 2, result.output
    return result.output


def test_written_argument_types_are_those_of_the_table() -> None:
    import capicorn._arguments

    def words(text: str) -> str:
        return "".join(text.split())

    assert words(Path(capicorn._arguments.__file__).read_text()) == words(typed())


def test_names_and_flags_are_unique() -> None:
    every = FLAGS + [flag for flags, _, _ in LATER for flag in flags]
    assert len(set(every)) == len(every)
    assert len(BY_NAME) == len(SETTINGS)
    assert set(POSITIONAL) <= set(BY_NAME)


def test_help_and_readme_table_name_every_flag() -> None:
    shown = CliRunner().invoke(capicorn.main, ["--help"], terminal_width=200).output
    table = markdown()
    for flag in FLAGS:
        assert flag in shown
        assert f"`{flag}`" in table


def test_config_signature_has_every_setting_with_its_default() -> None:
    parameters = inspect.signature(Config).parameters
    assert list(parameters)[: len(POSITIONAL) + 1] == ["app", *POSITIONAL]
    for setting in SETTINGS:
        if setting.scope != "run":
            expected = LOGGING_CONFIG if setting.name == "log_config" else setting.default
            assert parameters[setting.name].default == expected
    assert parameters["log_config"].default is LOGGING_CONFIG


def test_run_has_the_arguments_of_config_by_keyword() -> None:
    ours, its = inspect.signature(capicorn.run).parameters, inspect.signature(Config).parameters
    assert [*its, "app_dir"] == list(ours)
    assert all(ours[name].default is its[name].default for name in its)
    assert {p.kind for n, p in ours.items() if n != "app"} == {inspect.Parameter.KEYWORD_ONLY}


def test_every_core_argument_is_one_of_the_extension() -> None:
    stub = (Path(capicorn.__file__).parent / "_core.pyi").read_text()
    for setting in SETTINGS:
        assert not setting.core or f"        {setting.core}:" in stub


def value_that_needs_the_feature(setting: object) -> str:
    kind = getattr(setting, "kind")  # noqa: B009
    return {"int": "7", "float": "7", "bool": "false", "flag": "", "str": "x", "path": "/x"}[kind]


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s.missing and s.flags], ids=lambda s: s.name)
def test_a_flag_whose_feature_is_not_there_says_so_and_exits_2(setting: object) -> None:
    flag = setting.flags[0]  # type: ignore[attr-defined]
    value = value_that_needs_the_feature(setting)
    text = usage_error(flag, *([value] if value else []))
    assert f"Error: {flag}: " in text
    assert "not in this release of Capicorn." in text


@pytest.mark.parametrize("row", LATER, ids=lambda row: row[0][0])
def test_a_flag_of_gunicorn_for_later_says_so_and_exits_2(row: tuple[tuple[str, ...], bool, str]) -> None:
    flags, has_value, _ = row
    for flag in flags:
        assert f"{flags[0]}: " in usage_error(flag, *(["1"] if has_value else []))


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s.missing], ids=lambda s: s.name)
def test_such_a_keyword_argument_is_refused_when_the_config_is_loaded(setting: object) -> None:
    config = Config("os:path", log_config=None, **{setting.name: 7})  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedSettingError, match=setting.name):  # type: ignore[attr-defined]
        config.load()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--port", "65536"], "65536 is not 0 to 65535"),
        (["--port", "http"], "'http' is not a valid integer"),
        (["--timeout-keep-alive", "-1"], "-1.0 is not 0 or more"),
        (["--timeout-send", "nan"], "nan is not 0 or more"),
        (["--lifespan", "maybe"], "'maybe' is not one of"),
        (["--http", "nosuch"], "'nosuch' is not one of"),
        (["--ws", "nosuch"], "'nosuch' is not one of"),
        (["--workers", "513"], "513 is not 0 to 512"),
        (["--header", "no colon"], "should be NAME:VALUE"),
        (["--header", "bad name:x"], "not the name of a header field"),
        (["--header", "x:a\nb"], "control character"),
        (["--log-config", "/no/such/file"], "does not exist"),
        (["--env-file", "/no/such/file"], "does not exist"),
        (["--bind", "127.0.0.1:http"], "'http' is not a port"),
        (["--bind", "::1:80"], "brackets"),
        (["--bind", "fd://x"], "names no descriptor"),
        (["--no-such-flag"], "No such option"),
    ],
)
def test_nonsense_is_one_message_and_exit_code_2(words: list[str], says: str) -> None:
    assert says in " ".join(usage_error(*words).split())


def test_nonsense_in_web_concurrency_is_named() -> None:
    assert "WEB_CONCURRENCY: 'many'" in usage_error(env={"WEB_CONCURRENCY": "many"})


def test_a_missing_app_is_asked_for() -> None:
    result = CliRunner().invoke(capicorn.main, [])
    assert result.exit_code == 2 and "Missing argument 'APP'" in result.output


@pytest.mark.parametrize(("name", "text"), [("bad.json", "{"), ("bad.yaml", "a: ["), ("bad.ini", "no section")])
def test_a_broken_log_config_is_one_message(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert "Traceback" not in usage_error("--log-config", str(path))


@pytest.mark.parametrize(
    ("argument", "value"), [("port", -1), ("http", object()), ("log_level", "loud"), ("headers", [("a b", "c")])]
)
def test_an_impossible_keyword_argument_is_a_value_error_that_names_it(argument: str, value: object) -> None:
    with pytest.raises(ValueError, match=argument):
        Config("x:y", log_config=None, **{argument: value})


def test_an_unknown_keyword_argument_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'prot'"):
        Config("x:y", prot=1)  # type: ignore[call-arg]


def test_positional_arguments_are_in_uvicorns_order() -> None:
    config = Config("x:y", "::1", 1, None, None, "asyncio", log_config=None)
    assert (config.host, config.port, config.loop) == ("::1", 1, "asyncio")


@pytest.mark.parametrize(
    ("bind", "expected"),
    [
        ("0.0.0.0:88", ("0.0.0.0", 88, None, None)),
        (":88", ("0.0.0.0", 88, None, None)),
        ("[::1]:88", ("::1", 88, None, None)),
        ("[::1]", ("::1", 8000, None, None)),
        ("localhost", ("localhost", 8000, None, None)),
        ("unix:/run/x", (None, 0, "/run/x", None)),
        ("unix:///run/x", (None, 0, "/run/x", None)),
        ("fd://3", (None, 0, None, 3)),
    ],
)
def test_bind_is_spelled_as_gunicorn_does(bind: str, expected: tuple[object, ...]) -> None:
    assert parse_address(bind) == expected


def test_h11s_limit_becomes_that_of_the_head() -> None:
    config = Config("x:y", log_config=None, h11_max_incomplete_event_size=99999)
    assert (config.limit_request_head, config.limit_request_line) == (99999, 99999)


def test_importing_the_package_imports_nothing_heavy(run_python: object) -> None:
    code = "import capicorn, sys, json; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(run_python(code).stdout))  # type: ignore[operator]
    assert not loaded & {"asyncio", "click", "logging", "ssl", "capicorn._core", "capicorn.config", "threading"}
