"""The evaluator: runs recipe files inside the evaluation cell and prints their decks.

One request (MicroJSON 206) comes in on standard input, one answer (207) leaves on standard output. Each recipe is
evaluated in a process of its own, so that none can reach into another's objects, and everything that it started has
ended before the next one begins; a recipe is evaluated only when it is wanted or used by one that is. The import
filter and the trimmed builtins keep decks deterministic and give early, clear errors; they are no security boundary.
The cell is, in which the evaluator is process 1 and bars its memory, and the host checks every deck that leaves it.
"""

from __future__ import annotations

import ast
import builtins
import os
import select
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from anvil.errors import RecipeError
from anvil.microjson.codec import MicroJSON, canonical, parse_canonical
from anvil.microjson.registry import MessageID
from anvil.recipe import language
from anvil.recipe.deck import extenders, received, uses
from anvil.recipe.reference import AdditionRefused

if TYPE_CHECKING:
    from collections.abc import Callable

Data = dict[str, Any]

ALLOWED_IMPORTS = frozenset(
    {"__future__", "anvil.recipe", "collections", "dataclasses", "enum", "functools", "itertools", "math", "operator"}
    | {"re", "string", "textwrap", "typing"}
)

# What would make a deck depend on anything but its text (addresses, files, the terminal), or hide a step from review.
_BANNED_BUILTINS = frozenset(
    {"open", "input", "breakpoint", "id", "hash", "exec", "eval", "compile", "globals", "locals", "vars"}
    | {"exit", "quit"}
)

RECIPE_SECONDS = 10
_ANSWER_LIMIT = 64 * 1024 * 1024
_PR_SET_DUMPABLE = 4


def main() -> None:
    """Read the request, evaluate the closure of the wanted recipes, write the answer."""
    _close_to_children()
    answer = os.dup(1)
    os.dup2(2, 1)  # whatever else is printed is no part of the answer
    request = MicroJSON.decode(sys.stdin.buffer.read())["data"]
    with os.fdopen(answer, "wb") as out:
        out.write(MicroJSON.message(MessageID.EVALUATION_ANSWER, evaluate_closure(request, between=_end_all_others)))


def evaluate_closure(request: Data, between: Callable[[], None] = lambda: None) -> Data:
    """Evaluate what is wanted and all that it uses: {"decks": {name: deck}} or {"error": …, "recipe": name}.

    request: {"profile": str, "sources": {name: {"version", "facts"}}, "recipes": {name: text}, "wanted": [name],
    "chain": [deck]}. chain: the recipe that is forged, what it extends, what that extends and so on, as far as it is
    known: of each deck its "recipe", "extends" and "additions". Left out or empty, it begins with the first that is
    wanted. The rest of it is evaluated before everything else, which receives what the chain adds.
    between: called after each recipe.
    """
    chain: list[Data] = list(request.get("chain", []))
    decks: Data = {}
    queue = [(name, "") for name in request["wanted"]]
    following, user = (chain[-1]["extends"], chain[-1]["recipe"]) if chain else (request["wanted"][0], "")
    try:
        while following or queue:
            name, user = (following, user) if following else queue.pop(0)
            if name in decks:
                if following:
                    return _told(user, f"recipes extend each other in a ring: {user} extends {name!r}")
                continue
            answer = _deck_of(name, user, request, chain)
            between()
            if "error" in answer:
                return {"recipe": answer.get("recipe", name), "error": answer["error"]}
            deck = decks[name] = answer["deck"]
            queue += [(used, name) for used in uses(deck)]
            if following:
                chain.append(deck)
                following, user = deck["extends"], name
    except (KeyError, IndexError, TypeError, AttributeError):  # the recipe wrote its answer itself
        return _told(name, "the recipe gave no deck")
    return {"decks": decks}


def _deck_of(name: str, user: str, request: Data, chain: list[Data]) -> Data:
    """A recipe's deck, made in a process of its own: {"deck": …}, or {"error": …} and, if not its own, "recipe"."""
    text = request["recipes"].get(name)
    if text is None:
        by = f", which {user} uses" if user else ""
        if chain and (chain[-1]["recipe"], chain[-1]["extends"]) == (user, name):
            by = f", which {user} extends"
        known = ", ".join(sorted(request["recipes"]))
        return _told(user or name, f"no recipe is called {name!r}{by}", hint=f"known recipes: {known}")
    return _in_child(name, text, request, chain)


def _told(recipe: str, message: str, hint: str = "") -> Data:
    return {"recipe": recipe, **_error(message, 0, hint=hint)}


def _close_to_children() -> None:
    """Bar this process's memory and descriptors to others of the same uid: a recipe's process is one of them.

    Children are born with the same bar, so what one recipe leaves running cannot reach into the next.
    """
    import ctypes  # here: only the evaluation cell needs it

    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, *(ctypes.c_ulong(0) for _ in range(4))) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE) failed")


def _keep_only(descriptor: int) -> None:
    """Close all that a recipe's process was born with but standard error and its way to answer."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, os.sysconf("SC_OPEN_MAX"))


def _end_all_others() -> None:
    """End every process of the cell but this one, which is its first, and collect them: the next recipe is alone."""
    if os.getpid() != 1:
        raise OSError("the evaluator is not the first process of a cell")
    try:
        os.kill(-1, signal.SIGKILL)
        while True:
            os.wait()
    except (ProcessLookupError, ChildProcessError):
        return


def _in_child(name: str, text: str, request: Data, chain: list[Data]) -> Data:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        _keep_only(write_end)
        with os.fdopen(write_end, "wb") as pipe:
            pipe.write(canonical(_evaluate(name, text, request, chain), max_bytes=_ANSWER_LIMIT))
        os._exit(0)
    os.close(write_end)
    data = _said_by(child, read_end)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    try:
        answer = parse_canonical(data, max_bytes=_ANSWER_LIMIT)
    except Exception:  # noqa: BLE001 - whatever the recipe did to its process, the answer is the same
        hint = f"a recipe is data: it has {RECIPE_SECONDS} s; look for a loop without end"
        return {"error": {"message": "the recipe took too long, or ended its own evaluation", "hint": hint, "line": 0}}
    return answer if isinstance(answer, dict) else {"error": {"message": "no deck", "hint": "", "line": 0}}


def _said_by(child: int, pipe: int) -> bytes:
    """What a recipe's process wrote, until it ended or its time was over; closes ``pipe``.

    The end of file is not waited for: whatever it has started may hold the other end for ever.
    """
    said = bytearray()
    deadline = time.monotonic() + RECIPE_SECONDS
    ended = os.pidfd_open(child)
    os.set_blocking(pipe, False)
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    poll.register(ended, select.POLLIN)
    try:
        while len(said) <= _ANSWER_LIMIT and (left := deadline - time.monotonic()) > 0:
            ready = {fd for fd, _ in poll.poll(left * 1000)}
            try:
                block = os.read(pipe, 1 << 20)
            except BlockingIOError:
                if ended in ready:
                    break
                continue
            if not block:
                break
            said += block
    finally:
        os.close(ended)
        os.close(pipe)
    return bytes(said)


def _evaluate(name: str, text: str, request: Data, chain: list[Data]) -> Data:
    filename = f"{name}.py"
    try:
        tree = ast.parse(text, filename)
        _check_imports(tree)
        language.provide(
            request["profile"],
            request["sources"],
            received=received(chain, name),
            extenders=extenders(chain, name),
        )
        scope = {"__name__": name, "__builtins__": _safe_builtins()}
        exec(compile(tree, filename, "exec"), scope)  # noqa: S102 - this is what the evaluation cell is for
        recipes = language.made()
        if len(recipes) != 1:
            raise RecipeError(f"the file makes {len(recipes)} recipes", hint="one file makes exactly one Recipe(…)")
        if recipes[0].name != name:
            raise RecipeError(f"the file is {filename} but its recipe is {recipes[0].name!r}")
        deck = recipes[0].deck()
        canonical(deck)  # whatever is not plain data fails here, with this recipe's name on it
    except SyntaxError as error:
        return _error(f"syntax error: {error.msg}", error.lineno or 0, hint=(error.text or "").strip())
    except AdditionRefused as error:
        return _told(error.blame, error.message, hint=error.hint)
    except RecipeError as error:
        return _error(error.message, _line(error, filename), hint=error.hint)
    except BaseException as error:  # noqa: BLE001 - a recipe may raise anything, SystemExit included
        return _error(f"{type(error).__name__}: {error}", _line(error, filename))
    return {"deck": deck}


def _error(message: str, line: int, hint: str = "") -> Data:
    return {"error": {"message": message, "line": line, "hint": hint}}


def _line(error: BaseException, filename: str) -> int:
    lines = [frame.lineno or 0 for frame in traceback.extract_tb(error.__traceback__) if frame.filename == filename]
    return lines[-1] if lines else 0


def _check_imports(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "" if node.level == 0 else "a relative module"]
        for module in names:
            if module not in ALLOWED_IMPORTS:
                line = getattr(node, "lineno", 0)
                known = ", ".join(sorted(ALLOWED_IMPORTS - {"__future__"}))
                raise RecipeError(f"line {line}: a recipe cannot import {module!r}", hint=f"it may import {known}")


def _safe_builtins() -> dict[str, Any]:
    safe = {name: value for name, value in vars(builtins).items() if name not in _BANNED_BUILTINS}
    real_import = builtins.__import__

    def guarded(name: str, *args: Any, **kwargs: Any) -> Any:
        if name not in ALLOWED_IMPORTS:
            raise RecipeError(f"a recipe cannot import {name!r}")
        return real_import(name, *args, **kwargs)

    safe["__import__"] = guarded
    return safe
