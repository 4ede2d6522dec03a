"""Arrays in and out: numpy, and torch where that is what came in. Neither is imported before it is needed."""

from __future__ import annotations

import sys
from typing import Any

from .errors import UsageError


def torch() -> Any:
    """torch, if the program has imported it or it can be."""
    module = sys.modules.get("torch")
    if module is not None:
        return module
    try:
        import torch as found
    except ImportError:
        return None
    return found


def is_torch(value: Any) -> bool:
    """Whether it is a tensor of torch. Does not import torch: without it nothing is."""
    module = sys.modules.get("torch")
    return module is not None and isinstance(value, getattr(module, "Tensor", ()))


def is_array(value: Any) -> bool:
    """Whether it is an array of some library, and not a list or a text."""
    return hasattr(value, "__dlpack__") or hasattr(value, "__array__")


def to_numpy(value: Any) -> Any:
    """Any array, or lists of numbers, as numpy's."""
    import numpy as np

    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
            raise UsageError("the mask of a masked array is not read: give value.filled(…), and an attention_mask")
        return np.asarray(value)
    if is_torch(value):
        try:
            return _of_torch(value)
        except (NotImplementedError, RuntimeError, TypeError) as error:
            # On the device meta there are no numbers; sparse and nested ones are no arrays.
            raise UsageError(f"a tensor cannot be read: {error}") from error
    # Columns of pyarrow warn when they are asked so, and most cannot.
    if hasattr(value, "__dlpack__") and not hasattr(value, "to_pylist"):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, AttributeError):
            pass
    if not hasattr(value, "__array__") and hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.asarray(value)


def _of_torch(value: Any) -> Any:
    import numpy as np

    value = value.detach().cpu()
    try:
        return np.asarray(value.numpy())
    except TypeError:
        # Of a type that numpy does not have, such as bfloat16.
        return np.asarray(value.float().numpy())


def plain(value: Any) -> Any:
    """A column of pyarrow as a list: it iterates over objects of its own. Anything else as it is."""
    return value.to_pylist() if hasattr(value, "to_pylist") and not hasattr(value, "column_names") else value


def texts_in(value: Any) -> list[str] | None:
    """The texts of a text, or of a list, array or column of texts; ``None`` where it holds something else."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, (list, tuple)):
        # An array of texts has no kind of numbers; a tensor has no kind at all.
        if not hasattr(value, "tolist") or getattr(getattr(value, "dtype", None), "kind", "O") not in "OUT" or is_torch(value):
            return None
        value = value.tolist()
    return list(value) if value and isinstance(value[0], str) else None


def to_ids(value: Any, name: str = "input_ids") -> Any:
    """``[batch, length]`` int64 of token ids given as an array, tensor or lists."""
    import numpy as np

    try:
        array = to_numpy(value)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
    except ValueError as error:
        raise UsageError(f"{name}: rows differ in length; pad them (tokenizer(…, padding=True))") from error
    if array.dtype == object:
        raise UsageError(f"{name} holds objects; expected whole numbers")
    if array.ndim == 1:
        array = array[None, :]
    if array.ndim != 2:
        raise UsageError(f"{name} has {array.ndim} dimensions; expected [batch, length]")
    if array.dtype.kind not in "iu":
        if array.dtype.kind != "f" or not (np.isfinite(array).all() and np.array_equal(array, np.floor(array))):
            raise UsageError(f"{name} holds {array.dtype}; expected whole numbers")
    return array.astype(np.int64)


def like(array: Any, given: Any) -> Any:
    """A numpy array in the library of what was given: torch's tensor for torch's, numpy's for everything else."""
    if is_torch(given):
        import numpy as np

        return torch().from_numpy(np.ascontiguousarray(array))
    return array


def host(array: Any, kind: str | None) -> Any:
    """What a tokenizer returns: ``None`` for lists, ``"np"`` for numpy, ``"pt"`` for torch's tensor that lives on the host
    whatever it is told; without torch an ndarray with the same methods."""
    if kind is None:
        return array.tolist()
    if kind == "np":
        return array
    if kind != "pt":
        raise UsageError(f"return_tensors is {kind!r}; expected 'pt', 'np' or None")
    library = torch()
    if library is None:
        return _host_array(array)
    return _as_host(library.from_numpy(array.copy()))


def _as_host(tensor: Any) -> Any:
    return tensor.as_subclass(_host_tensor(torch()))


_classes: dict[str, Any] = {}


def _host_tensor(library: Any) -> Any:
    """A torch.Tensor on which ``.cuda()`` and ``.to("cuda")`` do nothing where there is no CUDA."""
    if "tensor" not in _classes:

        def absent(device: Any) -> bool:
            name = getattr(device, "type", device)
            return isinstance(name, str) and name.split(":")[0] == "cuda" and not library.cuda.is_available()

        class HostTensor(library.Tensor):  # type: ignore[misc]
            def cuda(self, *args: Any, **keywords: Any) -> Any:
                return super().cuda(*args, **keywords) if library.cuda.is_available() else self

            def to(self, *args: Any, **keywords: Any) -> Any:
                if args and absent(args[0]):
                    args = args[1:]
                if absent(keywords.get("device")):
                    del keywords["device"]
                return super().to(*args, **keywords) if args or keywords else self

            def __reduce_ex__(self, protocol: Any) -> Any:
                return _as_host, (self.as_subclass(library.Tensor),)

            def __deepcopy__(self, memo: Any) -> Any:
                return _as_host(self.as_subclass(library.Tensor).__deepcopy__(memo))

        _classes["tensor"] = HostTensor
    return _classes["tensor"]


def _host_array(array: Any) -> Any:
    """An ndarray with the methods of tensors that scripts call on token ids."""
    if "array" not in _classes:
        import numpy as np

        class HostArray(np.ndarray[Any, Any]):
            def cuda(self, *_args: Any, **_keywords: Any) -> Any:
                return self

            def cpu(self) -> Any:
                return self

            def to(self, *_args: Any, **_keywords: Any) -> Any:
                return self

            def detach(self) -> Any:
                return self

            def clone(self) -> Any:
                return self.copy()

            def numpy(self) -> Any:
                return np.asarray(self)

            def long(self) -> Any:
                return self.astype(np.int64)

            @property
            def device(self) -> Any:
                return "cpu"

            def numel(self) -> int:
                return int(self.size)

            def __reduce__(self) -> Any:
                return _host_array, (np.asarray(self),)

        _classes["array"] = HostArray
    return array.view(_classes["array"])
