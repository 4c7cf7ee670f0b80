"""The command `capicorn`, made from the table of settings."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.core import ParameterSource

from capicorn._version import __version__
from capicorn.listeners import parse_address, socket_name
from capicorn.settings import ENV_PREFIXES, LATER, SETTINGS, Setting

if TYPE_CHECKING:
    from capicorn.config import Config


def _parameter_type(setting: Setting) -> click.ParamType[Any]:
    if setting.choices and not setting.open:
        return click.Choice(setting.choices)
    if setting.name == "log_level":
        return click.Choice(setting.choices, case_sensitive=False)
    if setting.kind in ("int", "float"):
        return _Number(setting)
    if setting.kind == "bool":
        return click.BOOL
    if setting.kind == "path" and not setting.missing:
        return click.Path(exists=True, dir_okay=setting.multiple, readable=True)
    return click.STRING


class _Number(click.ParamType[Any]):
    """An int or float within the bounds of its row."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.name = "integer" if setting.kind == "int" else "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        base: click.ParamType[Any] = click.INT if self.setting.kind == "int" else click.FLOAT
        number = base.convert(value, param, ctx)
        if problem := self.setting.problem(number):
            self.fail(f"{problem}.", param, ctx)
        return number


def _option(setting: Setting) -> click.Option:
    flags = list(setting.flags)
    more: dict[str, Any] = {}
    if setting.kind == "switch":
        flags = ["/".join(flags)]
    if setting.kind == "flag":
        more["is_flag"] = True
    elif setting.kind != "switch":
        more["type"] = _parameter_type(setting)
        if setting.metavar or setting.kind == "path":
            more["metavar"] = setting.metavar or "PATH"
        elif setting.open and setting.name != "log_level":
            more["metavar"] = f"[{'|'.join(setting.choices)}]"
    if setting.multiple:
        more["multiple"] = True
    else:
        more["default"] = setting.default
        more["show_default"] = setting.kind not in ("flag", "switch") and setting.default not in (None, "")
    text = setting.help + (" Not in this release." if setting.missing and not setting.without else "")
    return _Option([*flags, setting.name], envvar=list(setting.env), help=text, row=setting, **more)


class _Option(click.Option):
    def __init__(self, *args: Any, row: Setting, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.row = row


def _refused(flags: tuple[str, ...], has_value: bool, missing: str) -> click.Option:
    def refuse(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value:
            raise click.UsageError(f"{flags[0]}: {missing} not in this release of Capicorn.", ctx)

    return click.Option(flags, is_flag=not has_value, expose_value=False, hidden=True, callback=refuse)


class _Command(click.Command):
    """One command; its options are shown in groups. `capicorn fastapi …` is handed to fastapi-cli, and `status` and
    `top` (which are no applications: those have a colon) are commands of their own."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **kwargs: Any) -> Any:
        words = sys.argv[1:] if args is None else list(args)
        if words[:1] == ["fastapi"]:
            from capicorn.uvicorn_names import run_fastapi

            sys.exit(run_fastapi(words[1:]))
        if words[:1] == ["status"]:
            from capicorn import status

            return status.command.main(words[1:], "capicorn status")
        if words[:1] == ["top"]:
            from capicorn import top

            return top.command.main(words[1:], "capicorn top")
        return super().main(args, *more, **kwargs)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {setting.group: [] for setting in SETTINGS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                group = parameter.row.group if isinstance(parameter, _Option) else "Other"
                groups.setdefault(group, []).append(record)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records)


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    import platform

    click.echo(
        f"Running capicorn {__version__} with {platform.python_implementation()} {platform.python_version()}"
        f" on {platform.system()}"
    )
    ctx.exit()


def _callback(app: str | None, **values: Any) -> None:
    ctx = click.get_current_context()
    for setting in SETTINGS:
        if setting.flags and (reason := setting.refuse(values[setting.name], setting.flags[0])):
            raise click.UsageError(reason, ctx)
    try:
        values["bind"] = [text for given in values["bind"] for text in given.split(",")] or None
        for text in values["bind"] or []:
            if socket_name(text) is None:
                parse_address(text)
    except ValueError as exc:
        raise click.UsageError(f"--{exc}", ctx) from None
    values["headers"] = [_header(text) for text in values["headers"]] or None
    for name in ("reload_dirs", "reload_includes", "reload_excludes", "access_log_exclude"):
        values[name] = list(values[name]) or None
    if values["log_config"] is None:
        del values["log_config"]
    given = {
        name
        for name in values
        if ctx.get_parameter_source(name) in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    }
    config_file, worker_class = values.pop("config_file"), values.pop("worker_class")
    sys.path.insert(0, values.pop("app_dir"))
    _run(ctx, _CommandLine(app, values, given, config_file), worker_class)


class _CommandLine(NamedTuple):
    """What was given, from which a Config is made at the start and again at each reload."""

    app: str | None
    values: dict[str, Any]
    given: set[str]
    """The names of those values that are no defaults."""
    config_file: str | None

    def config(self) -> Config:
        from capicorn.config import Config

        values, app = dict(self.values), self.app
        if self.config_file is None:
            unknown = []
        else:
            from capicorn.supervisors.gunicorn_config import absolute_spec, load_config_file

            file = load_config_file(self.config_file)
            unknown = file.unknown
            if file.values.keys() & {"bind"} and self.given & {"host", "port", "uds", "fd"}:
                del file.values["bind"]
            values.update({name: value for name, value in file.values.items() if name not in self.given})
            os.environ.update(file.environment)
            sys.path[:0] = [path for path in file.python_path if path not in sys.path]
            app = app or file.app
        if app is None:
            raise ValueError("Missing argument 'APP': module:attribute, here or as wsgi_app in the configuration file.")
        start = os.getcwd()
        if values["chdir"] is not None:
            os.chdir(values["chdir"])
            values["chdir"] = os.getcwd()
        config = Config(app, **values)
        config.start_folder = start
        if self.config_file is not None:
            config.config_file = absolute_spec(self.config_file, start)
        if unknown:
            logging.getLogger("capicorn.error").warning(
                "%s: unknown here and without effect: %s", self.config_file, ", ".join(sorted(unknown))
            )
        return config


def _run(ctx: click.Context, line: _CommandLine, worker_class: str | None) -> None:
    from capicorn.runner import run_config

    start = os.getcwd()

    def remake() -> Config:
        here = os.getcwd()
        os.chdir(start)  # names of files are meant from there
        try:
            return line.config()
        except BaseException:
            os.chdir(here)
            raise

    wrong = (ValueError, TypeError, KeyError, AttributeError, ImportError, OSError, RuntimeError)
    try:
        config = line.config()
    except wrong as exc:
        # an impossible value, or a file that is not what it should be: told as click tells its own errors
        raise click.UsageError(_reason(exc), ctx) from None
    if reason := config.refused():
        raise click.UsageError(reason, ctx)
    if worker_class is not None:
        logging.getLogger("capicorn.error").debug("--worker-class %s: Capicorn has one class of workers.", worker_class)
    try:
        run_config(config, remake)
    except Exception as exc:
        print_without_us(exc)
        sys.exit(1)


def _reason(exc: BaseException) -> str:
    """The message with those of its causes that it does not hold."""
    text = str(exc) or type(exc).__name__
    cause = exc.__cause__
    while cause is not None:
        text += f" ({cause})" if str(cause) not in text else ""
        cause = cause.__cause__
    return text


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise click.UsageError(f"--header: {text!r} should be NAME:VALUE.")
    return name, value


def print_without_us(exc: BaseException) -> None:
    """The traceback of an error of the application's, on stderr, without the frames that lead to it."""
    traceback.print_exception(type(exc), exc, _first_of_theirs(exc.__traceback__))


def _first_of_theirs(tb: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that begins with code that is neither ours nor that of import and asyncio. All of it
    when there is no such code, unless only the import system was at work (a syntax error)."""
    ours, theirs = os.path.dirname(__file__), os.path.dirname(traceback.__file__)
    library = (os.path.join(theirs, "asyncio"), os.path.join(theirs, "importlib"))
    at, imported = tb, False
    while at is not None:
        name = at.tb_frame.f_code.co_filename
        imported = imported or name.startswith(("<frozen importlib", library[1]))
        if not name.startswith((ours, *library, "<frozen ")):
            return at
        at = at.tb_next
    return None if imported else tb


def _make(callback: Callable[..., None]) -> click.Command:
    argument = click.Argument(["app"], required=False, envvar=[prefix + "APP" for prefix in ENV_PREFIXES])
    options: list[click.Parameter] = [_option(setting) for setting in SETTINGS if setting.flags]
    options += [_refused(*row) for row in LATER]
    version = click.Option(
        ["--version"],
        is_flag=True,
        callback=_print_version,
        expose_value=False,
        is_eager=True,
        help="Tell the version and exit.",
    )
    return _Command(
        "capicorn",
        params=[argument, *options, version],
        callback=callback,
        help="Serve the ASGI application APP, given as module:attribute.\n\n"
        "Each option is also an environment variable: --root-path is CAPICORN_ROOT_PATH, else UVICORN_ROOT_PATH."
        " `capicorn fastapi run` and `capicorn fastapi dev` run fastapi-cli on Capicorn. `capicorn status` and"
        " `capicorn top` show what a running server does.",
    )


main: click.Command = _make(_callback)
