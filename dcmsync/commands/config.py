"""`dcmsync config`: what is set, where, and whether it can be. What each word does is in `settings` and `drafting`."""

from argparse import Namespace
from os import environ
from pathlib import Path

from dcmsync.commands.options import CALLING, JOBS, TIMEOUT, VIA, Command, Option, Streams
from dcmsync.errors import ExitStatus, UsageError

_OVER = (TIMEOUT, CALLING, JOBS, VIA)  # options that go before the keys of an endpoint

COMMAND = Command(
    name="config",
    summary="show where each setting comes from; edit and check the configuration",
    description=(
        "`show` prints the settings that hold: the file's, with what the environment and the options of this command "
        "line say over them, and the quirks of profiles; with --show-origin, where each of them is from. Secrets are "
        "never printed. `path` prints which file counts, whether or not it is there. `edit` opens it in $VISUAL or "
        "$EDITOR, made from the template where there is none; what cannot be understood afterwards is kept as a draft, "
        "and the old file stays. `check` judges every key, locator, selector and quirk, names all that is wrong with "
        "its line, and exits 2 when anything is. `template` prints a configuration that sets nothing and has every "
        "key there is.\n\n"
        "dcmsync-locators(7) tells what the keys mean."
    ),
    options=(
        Option(flags=("action",), metavar="ACTION", choices=("show", "path", "edit", "check", "template"),
               help="what to do"),
        Option(flags=("name",), metavar="NAME", nargs="?", completion="endpoint",
               help="show or check only what is called so: an endpoint, a selector, a route"),
        Option(flags=("--show-origin",), help="say of each setting where it is from"),
        Option(flags=("--format",), metavar="FORMAT", choices=("toml", "json"), default="toml",
               help="how to show: toml (the default) or json"),
        *_OVER,
    ),
    examples=(
        ("dcmsync config show pacs --show-origin", "what holds for pacs, and where each of it is from"),
        ("dcmsync config edit", "set it up"),
        ("dcmsync config check && dcmsync echo pacs", "in a script: nothing is asked while a key is misspelt"),
    ),
)


def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Does what the first word says."""
    from dcmsync import config
    from dcmsync.commands import drafting, settings

    if arguments.name is not None and arguments.action not in ("show", "check"):
        raise UsageError(f"config {arguments.action} takes no name")
    file = config.which(arguments.config, environ)
    if arguments.action == "show":
        return _show(arguments, streams)
    if arguments.action == "check":
        return _check(arguments.config, arguments.name, streams)
    if arguments.action == "edit":
        def judge(draft: Path) -> None:
            if _check(str(draft), None, streams):
                raise UsageError("what you wrote cannot be understood")

        if drafting.edit(file, fresh=settings.template(), check=judge, environ=environ, say=streams.say):
            streams.say(f"{file}: written")
        return ExitStatus.DONE
    text = settings.template() if arguments.action == "template" else f"{file}\n"
    streams.stdout.write(text.encode())
    streams.stdout.flush()
    return ExitStatus.DONE


def _show(arguments: Namespace, streams: Streams) -> ExitStatus:
    from dcmsync import config
    from dcmsync.commands import settings
    from dcmsync.commands.options import DEFAULT_TIMEOUT_S
    from dcmsync.commands.places import DEFAULT_JOBS

    reading = config.read(arguments.config, environ)
    ae_title = reading.config.local.ae_title
    defaults = {"timeout": DEFAULT_TIMEOUT_S, "jobs": DEFAULT_JOBS, "calling": ae_title}
    found = settings.effective(reading, _given(arguments), defaults)
    if arguments.name is not None:
        found = [each for each in found if len(each.path) > 2 and each.path[1] == arguments.name]
        if not found:
            raise settings.unknown(arguments.name, reading.config)
    if arguments.format == "json":
        streams.stdout.write(settings.as_json(found, reading, with_origin=arguments.show_origin))
    else:
        streams.stdout.write(settings.as_toml(found, with_origin=arguments.show_origin).encode())
    streams.stdout.flush()
    return ExitStatus.DONE


def _given(arguments: Namespace) -> dict[str, tuple[object, str]]:
    """What the options say over every endpoint, and whether the command line or a variable says it."""
    said = {}
    for row in _OVER:
        flag = next(flag for flag in row.flags if flag.startswith("--"))
        name, variable = flag[2:], f"DCMSYNC_{flag[2:].upper()}"
        value = getattr(arguments, name)
        if value is not None:
            text = environ.get(variable, "")
            is_variable = bool(text) and row.parse(text) == value
            said[name] = value, f"{variable} in the environment" if is_variable else flag
    return said


def _check(path: str | None, name: str | None, streams: Streams) -> ExitStatus:
    """Says all that is wrong, one line each."""
    from dcmsync import config, toml
    from dcmsync.commands import settings
    from dcmsync.commands.places import Places
    from dcmsync.keys import faults
    from dcmsync.net.patience import Watch

    file = config.which(path, environ)
    text = config.text_of(file)
    wrong = list(faults(config.Config, toml.read(text, str(file)), str(file), text)) if text else []
    if not wrong:
        places = Places(Namespace(config=path), Watch(), streams)
        wrong = list(settings.faults(config.read(path, environ), name, places))
    for fault in wrong:
        streams.say(str(fault))
    return ExitStatus.USAGE if wrong else ExitStatus.DONE
