"""``anvil``: finds the command, runs it, and turns errors into one screen of text and an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anvil
from anvil.cli import terminal
from anvil.errors import AnvilError, EnvironmentLack, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = Path(__file__).parent / "commands"

_INTRODUCTION = "Make bootable operating systems from short Python recipes."


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns its exit code: 0 done, 1 not so, 2 usage, 3 the machine lacks something, 130 stopped."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except AnvilError as error:
        terminal.show_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has gone; keep Python from complaining about it while it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except MemoryError:
        terminal.show_error(EnvironmentLack("no memory left", hint="end something else, or forge with --jobs 1"))
        return EnvironmentLack.exit_code
    except OSError as problem:
        from anvil.vault.disk import foreign

        lack = foreign(problem, f"running anvil {' '.join(words[:1])}")
        terminal.show_error(lack)
        return lack.exit_code


def command_names() -> list[str]:
    """Every command, sorted."""
    return sorted(path.stem for path in COMMANDS.glob("*.py") if not path.stem.startswith("_"))


def _dispatch(words: list[str]) -> int:
    if words[:1] in (["--version"], ["-V"]):
        print(f"anvil {anvil.__version__}")
        return 0
    if not words or words[0] in {"-h", "--help", "help"}:
        _print_help()
        return 0
    names = command_names()
    if words[0] not in names:
        import difflib

        near = difflib.get_close_matches(words[0], names, n=1)
        hint = f"did you mean: anvil {near[0]}" if near else "the commands: anvil --help"
        raise UsageError(f"there is no command {words[0]!r}", hint=hint)
    module: Any = importlib.import_module(f"anvil.cli.commands.{words[0]}")
    parser = _Parser(
        prog=f"anvil {words[0]}",
        description=module.__doc__,
        epilog=f"example:\n  {module.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    code: int = module.run(parser.parse_args(words[1:]))
    return code


def _print_help() -> None:
    print(f"{_INTRODUCTION}\n\nusage: anvil COMMAND …\n")
    for name in command_names():
        module = importlib.import_module(f"anvil.cli.commands.{name}")
        print(f"  {name:<10} {(module.__doc__ or '').splitlines()[0].rstrip('.')}")
    print("\nanvil COMMAND --help explains a command. Exit codes: 0 done, 1 not so (a jam, a failed check),")
    print("2 wrong words, 3 the machine lacks something (the message says what mends it), 130 stopped.")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise UsageError(message, hint=f"{self.prog} --help")


if __name__ == "__main__":
    sys.exit(main())
