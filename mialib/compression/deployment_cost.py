"""What a network costs in use: parameters, bytes of its file, milliseconds for an answer on a CPU.

For networks that are physically smaller (`channels.smaller`). Weights that are only masked cost as much as before.
"""

import copy
import statistics
import time
from collections.abc import Callable, Mapping

import pandas as pd
import safetensors.torch
import torch
from torch import Tensor, nn


def compare(
    before: nn.Module, after: nn.Module, examples: Mapping[str, Tensor], repeats: int = 30
) -> pd.DataFrame:
    """The costs of two modules side by side: columns before, after and ratio (before / after, > 1 = a gain).

    Rows are parameters, file (KB) of 1000 bytes, and "CPU latency, <name> (ms)" for each of `examples`, name -> batch
    (b, ...). The modules run in turns, so that other work on the machine slows both down alike.
    """
    sizes = [file_size(module) for module in (before, after)]
    rows = {
        "parameters": [size["parameters"] for size in sizes],
        "file (KB)": [size["file_bytes"] / 1000 for size in sizes],
    }
    for name, example in examples.items():
        rows[f"CPU latency, {name} (ms)"] = latencies([before, after], example, repeats)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["before", "after"], dtype=float)
    return table.assign(ratio=table["before"] / table["after"])


def file_size(module: nn.Module) -> dict[str, int]:
    """parameters: their number; file_bytes: the length of the state dict as a safetensors file."""
    # Cloned: safetensors refuses tensors that share memory.
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    return {
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "file_bytes": len(safetensors.torch.save(state)),
    }


def latencies(answers: list[Callable[[Tensor], Tensor]], example: Tensor, repeats: int = 30) -> list[float]:
    """Median milliseconds of answers to `example` (b, ...), on one CPU thread and in turns.

    Modules among `answers` are copied to the CPU and set to eval mode. Other callables are called as they are; if their
    work is not PyTorch's, they must limit themselves to one thread.
    """
    answers = [copy.deepcopy(a).cpu().eval() if isinstance(a, nn.Module) else a for a in answers]
    example = example.cpu()
    milliseconds = [[] for _ in answers]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for turn in range(-3, repeats):  # the first three turns warm up caches and allocator
                for answer, record in zip(answers, milliseconds, strict=True):
                    start = time.perf_counter()
                    answer(example)
                    if turn >= 0:
                        record.append(1000 * (time.perf_counter() - start))
    finally:
        torch.set_num_threads(threads)
    return [statistics.median(record) for record in milliseconds]
