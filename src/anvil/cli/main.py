"""``anvil``: finds the command, runs it, and turns errors into one screen of text and an exit code."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

import anvil

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anvil.errors import AnvilError

COMMANDS = os.path.join(os.path.dirname(__file__), "commands")

_INTRODUCTION = "Make bootable operating systems from short Python recipes."
_FORM = "anvil {}"
_QUOTES = '"""'


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns its exit code: 0 done, 1 not so, 2 usage, 3 the machine lacks something, 130 stopped."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in (["--version"], ["-V"]):  # before anything is imported that it can do without
        print(f"anvil {anvil.__version__}")
        return 0
    return _guarded(words)


def _guarded(words: list[str]) -> int:
    """Run a command, every error of it turned into text and an exit code."""
    import signal

    from anvil.errors import AnvilError, EnvironmentLack

    _make_printable()
    try:
        return _dispatch(words)
    except AnvilError as error:
        return _show(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has gone; keep Python from complaining about it while it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except ImportError as problem:
        if not problem.name or problem.name.partition(".")[0] not in {"apsw", "rich"}:
            raise
        lack = EnvironmentLack(f"the Python package {problem.name} is missing, or broken", hint="make setup")
        return _show(lack)
    except MemoryError:
        return _show(EnvironmentLack("no memory left", hint="end something else, or forge with --jobs 1"))
    except OSError as problem:
        from anvil.vault.disk import foreign

        return _show(foreign(problem, f"running anvil {' '.join(words[:1])}"))


def _make_printable() -> None:
    """Whatever the streams' encoding is, and though one may be closed, no sentence is to end in a traceback."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 -- it stays open to the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def command_names() -> list[str]:
    """Every command, sorted."""
    names = (name.removesuffix(".py") for name in os.listdir(COMMANDS) if name.endswith(".py"))
    return sorted(name for name in names if not name.startswith("_"))


def summary(name: str) -> str:
    """What a command does, in a line: the first of its module's docstring, which is read without importing it."""
    with open(os.path.join(COMMANDS, f"{name}.py"), encoding="utf-8") as file:
        return file.readline().strip().removeprefix(_QUOTES).removesuffix(_QUOTES).rstrip(".")


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in {"-h", "--help", "help"}:
        _print_help()
        return 0
    names = command_names()
    if words[0] not in names:
        from anvil.errors import UsageError
        from anvil.model import near

        hint = near.hint(words[0], [*names, "--help", "--version"], otherwise="the commands: anvil --help", form=_FORM)
        raise UsageError(f"there is no command {words[0]!r}", hint=hint)
    from anvil.cli import parsing

    code: int = parsing.command(words[0]).run(parsing.parser_of(words[0]).understand(words[1:]))
    return code


def _print_help() -> None:
    names = command_names()
    width = max(10, *map(len, names))
    print(f"{_INTRODUCTION}\n\nusage: anvil COMMAND …\n")
    for name in names:
        print(f"  {name:<{width}} {summary(name)}")
    print("\nanvil COMMAND --help explains a command. Exit codes: 0 done, 1 not so (a jam, a failed check),")
    print("2 wrong words, 3 the machine lacks something (the message says what mends it), 130 stopped.")


def _show(error: AnvilError) -> int:
    from anvil.cli import terminal

    terminal.show_error(error)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
