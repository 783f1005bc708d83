"""LoRA adapters for the tiny model, and the processes of engines."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

from nim_core.types import Adapter


def make_adapter(folder: Path, name: str, seed: int) -> Adapter:
    """Write an adapter with random numbers large enough for another text."""
    numbers, rank, width = random.Random(seed), 8, {"q_proj": 128, "v_proj": 64}
    tensors: dict[str, tuple[tuple[int, int], bytes]] = {}
    for layer in range(2):
        for module, rows in width.items():
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            for part, shape in (("A", (rank, 128)), ("B", (rows, rank))):
                values = [numbers.gauss(0, 1) for _ in range(shape[0] * shape[1])]
                tensors[f"{prefix}.lora_{part}.weight"] = (shape, struct.pack(f"<{len(values)}f", *values))
    header, end = {}, 0
    for tensor, (shape, data) in tensors.items():
        header[tensor] = {"dtype": "F32", "shape": shape, "data_offsets": (end, end + len(data))}
        end += len(data)
    head = json.dumps(header).encode()
    place = folder / name
    place.mkdir(parents=True)
    content = b"".join(data for _, data in tensors.values())
    (place / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + content)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 16, "lora_dropout": 0.0}
    config |= {"target_modules": sorted(width), "base_model_name_or_path": "tiny", "bias": "none"}
    (place / "adapter_config.json").write_text(json.dumps(config))
    return Adapter(name=name, folder=place, rank=rank)


def children(pid: int) -> list[int]:
    """Return a process's children, and theirs."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *children(child)]
    return found
