from collections.abc import Callable
from collections.abc import Set as AbstractSet

def count_plain(value: object, room: int, most: int) -> int: ...
def frame_id(message: object, room: int, most: int) -> int: ...
def write_message(
    message: object,
    room: int,
    most: int,
    known: AbstractSet[int],
    dumps: Callable[[object, None, int], bytes],
    options: int,
) -> bytes | None: ...
