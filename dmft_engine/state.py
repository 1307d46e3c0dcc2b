"""State as a value: what a run needs to go on, as plain tensors, numbers and lists.

An object that changes while a run goes on names in `kept` the attributes that change; the rest is made
again by whoever restores it. `state()` copies, so that the run may go on; what it gives can be saved by
torch.save and read with weights_only=True.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

State = dict[str, Any]


class Stateful:
    """Has a state.

    Attributes:
        kept: names of the attributes that are its state: tensors, numbers, strings, None, objects with a
            state, and lists and dicts of these.
    """

    kept: ClassVar[tuple[str, ...]] = ()

    def state(self) -> State:
        """All that changes as the run goes on."""
        return {name: _taken(getattr(self, name)) for name in self.kept}

    def restore(self, state: State) -> None:
        """Be as the object was that gave this state; it was made in the same way as this one.

        Raises:
            KeyError: the state is that of another kind of object.
        """
        for name in self.kept:
            setattr(self, name, _given(getattr(self, name), state[name]))


def moved(value: Any, device: str) -> Any:
    """A state with its tensors on a device; those that are there already are not copied."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, list):
        return [moved(item, device) for item in value]
    if isinstance(value, dict):
        return {key: moved(item, device) for key, item in value.items()}
    return value


def _taken(value: Any) -> Any:
    if isinstance(value, Stateful):
        return value.state()
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, (list, tuple)):
        return [_taken(item) for item in value]
    if isinstance(value, dict):
        return {key: _taken(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a {type(value).__name__} is no plain value that a state may hold")


def _given(current: Any, value: Any) -> Any:
    if isinstance(current, Stateful):
        current.restore(value)
        return current
    if isinstance(value, list):
        held = isinstance(current, (list, tuple)) and any(isinstance(item, Stateful) for item in current)
        return [_given(*pair) for pair in zip(current, value, strict=True)] if held else _taken(value)
    return _taken(value)
