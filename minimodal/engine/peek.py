"""A value as text for people, read from its pickle without unpickling: nothing is imported or called.

A small machine follows the opcodes and knows literals and containers; of anything else it knows the
name that stands in the pickle, and shows what it would be made with: `shop.Item(name='tea')`.
"""

from __future__ import annotations

import pickletools
import reprlib
from itertools import islice
from typing import Any

from minimodal.asgi_messages import unpack
from minimodal.errors import ProtocolError
from minimodal.types import Payload

LONGEST = 16 * 1024  # bytes of a pickle that is looked into
SHOWN = 600  # characters

_MARK: Any = object()
_PUSHED = frozenset(
    "NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE "
    "BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 STRING "
    "BINSTRING SHORT_BINSTRING".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


def value(payload: Payload) -> str:
    """What a result is."""
    return _guarded(payload, lambda made: _words.repr(made))


def arguments(payload: Payload, *, web: bool = False) -> str:
    """What a call was given: `3, name='tea'`, or of a web request its first line."""
    if web:
        try:
            head = unpack(payload.data)
        except ProtocolError:
            return ""
        query = bytes(head.get("query_string", b"")).decode("latin-1")
        return f"{head.get('method', 'WebSocket')} {head.get('path')}{'?' + query if query else ''}"
    return _guarded(payload, _call_words)


def _guarded(payload: Payload, words: Any) -> str:
    if len(payload.data) > LONGEST:
        return f"({payload.nbytes:,} bytes: too long to be shown)"
    try:
        text: str = words(_Machine().run(bytes(payload.data)))
    except Exception:  # whatever a damaged or hostile pickle does to the machine
        return f"({payload.nbytes:,} bytes that cannot be shown)"
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _call_words(made: Any) -> str:
    args, kwargs = made
    return ", ".join(
        [
            *map(_words.repr, islice(args, 20)),
            *(f"{_name(n)}={_words.repr(each)}" for n, each in islice(kwargs.items(), 20)),
        ]
    )


def _name(key: Any) -> str:
    """Of an argument or attribute."""
    return key if isinstance(key, str) else _words.repr(key)


class Made:
    """Stands for an object: the name of what makes it, and with what."""

    def __init__(self, name: str, args: tuple[Any, ...] | None = None) -> None:
        self.name = name[:200]
        self.args = args
        self.state: Any = None


def _key(item: Any) -> Any:
    """A key or an item of a set as one that is quickly hashed and short: a tuple of a hostile pickle
    may hold itself a thousand times over."""
    if isinstance(item, str | bytes | int | float | type(None) | Made):
        return item
    return Made("…")


class _Words(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = 10
        self.maxstring = self.maxother = 200

    def repr_Made(self, made: Made, level: int) -> str:
        if made.args is None:
            return f"<{made.name}>"
        if level <= 0:
            return f"{made.name}(…)"
        inside = [self.repr1(each, level - 1) for each in made.args[:10]]
        state = made.state
        if isinstance(state, tuple) and len(state) == 2:  # __dict__ and __slots__
            state = state[1] if isinstance(state[1], dict) else state[0]
        if isinstance(state, dict):
            inside += [
                f"{_name(key)}={self.repr1(each, level - 1)}"
                for key, each in list(state.items())[:10]
            ]
        return f"{made.name}({', '.join(inside)})"


_words = _Words()


class _Machine:
    """The stack and memo of one pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in _PUSHED:
                self.stack.append(_CONSTANTS.get(name, argument))
            else:
                getattr(self, f"_{name.lower()}", self._unknown)(argument)
        raise ValueError("no end")

    def _since_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("no mark")
        found = self.stack[at + 1 :]
        del self.stack[at:]
        return found

    def _unknown(self, _: Any) -> None:
        raise ValueError("an opcode of another time")

    def _proto(self, _: Any) -> None: ...

    _frame = _readonly_buffer = _proto

    def _mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def _pop(self, _: Any) -> None:
        self.stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    # --- containers ----------------------------------------------------------------------------------

    def _empty_tuple(self, _: Any) -> None:
        self.stack.append(())

    def _empty_list(self, _: Any) -> None:
        self.stack.append([])

    def _empty_dict(self, _: Any) -> None:
        self.stack.append({})

    def _empty_set(self, _: Any) -> None:
        self.stack.append(set())

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _tuple1(self, _: Any) -> None:
        self.stack[-1:] = [(self.stack[-1],)]

    def _tuple2(self, _: Any) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def _tuple3(self, _: Any) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def _list(self, _: Any) -> None:
        self.stack.append(self._since_mark())

    def _dict(self, _: Any) -> None:
        items = self._since_mark()
        self.stack.append(dict(zip(map(_key, items[::2]), items[1::2], strict=True)))

    def _frozenset(self, _: Any) -> None:
        self.stack.append(frozenset(map(_key, self._since_mark())))

    def _append(self, _: Any) -> None:
        item = self.stack.pop()
        self._extend([item])

    def _appends(self, _: Any) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def _additems(self, _: Any) -> None:
        items = self._since_mark()
        if isinstance(self.stack[-1], set):
            self.stack[-1].update(map(_key, items))

    def _setitem(self, _: Any) -> None:
        key, item = self.stack[-2:]
        del self.stack[-2:]
        if isinstance(self.stack[-1], dict):
            self.stack[-1][_key(key)] = item

    def _setitems(self, _: Any) -> None:
        items = self._since_mark()
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(zip(map(_key, items[::2]), items[1::2], strict=True))

    # --- the memo ------------------------------------------------------------------------------------

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _put(self, at: int) -> None:
        self.memo[at] = self.stack[-1]

    def _get(self, at: int) -> None:
        self.stack.append(self.memo[at])

    _binput = _long_binput = _put
    _binget = _long_binget = _get

    # --- what would be imported or called -----------------------------------------------------------

    def _global(self, name: str) -> None:
        self.stack.append(Made(name.replace(" ", ".").removeprefix("builtins.")))

    def _stack_global(self, _: Any) -> None:
        module, name = self.stack[-2:]
        del self.stack[-2:]
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError("a name that is none")
        self._global(f"{module} {name}")

    def _reduce(self, _: Any) -> None:
        function, args = self.stack[-2:]
        del self.stack[-2:]
        self._make(function, args)

    _newobj = _reduce

    def _newobj_ex(self, _: Any) -> None:
        kind, args, state = self.stack[-3:]
        del self.stack[-3:]
        self._make(kind, args)
        self.stack[-1].state = state

    def _make(self, what: Any, args: Any) -> None:
        name = what.name if isinstance(what, Made) else "?"
        self.stack.append(Made(name, args if isinstance(args, tuple) else ()))

    def _obj(self, _: Any) -> None:
        kind, *args = self._since_mark()
        self._make(kind, tuple(args))

    def _build(self, _: Any) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Made):
            self.stack[-1].state = state

    def _next_buffer(self, _: Any) -> None:
        self.stack.append(Made("buffer"))

    def _persid(self, _: Any) -> None:
        self.stack.append(Made("reference"))

    def _binpersid(self, _: Any) -> None:
        self.stack[-1] = Made("reference")
