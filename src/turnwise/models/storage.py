"""Loading Hugging Face folders and ids, with errors that say what is missing and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from turnwise.errors import TurnwiseError

Quantise = Literal["", "4bit", "8bit"]
"""Precision that frozen weights are loaded in: as they are, 4-bit normal float, or 8-bit integers."""


def load_model(
    auto: Any,
    path: str | Path,
    *,
    what: str = "a causal language model",
    dtype: str = "float32",
    device: str = "cpu",
    trust_remote_code: bool = False,
    quantise: Quantise = "",
    **options: Any,
) -> Any:
    """Load a model with one of transformers' auto classes.

    Args:
        auto: The auto class.
        path: Folder or hub id.
        what: What messages call the model.
        dtype: Torch dtype name of the weights.
        device: Torch device, see `find_device`.
        trust_remote_code: Run modelling code that comes with the weights.
        quantise: Load the weights in 4 or 8 bits, frozen.
        options: Passed on to the auto class.

    Raises:
        TurnwiseError: no such model or device, or it cannot be quantised here; with the remedy.
    """
    device = find_device(device)
    if quantise:
        options |= {"quantization_config": _quantisation(quantise, dtype), "device_map": {"": device}}
    try:
        with quiet():
            model = auto.from_pretrained(
                path, dtype=getattr(torch, dtype), trust_remote_code=trust_remote_code, **options
            )
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        kind = "folder" if Path(path).exists() else "folder or hub id"
        remedy = "A model folder holds config.json and *.safetensors; `--model tiny` builds one from scratch."
        if quantise:
            remedy = f"If it loads without quantise={quantise!r}, this machine is not one that bitsandbytes supports."
        raise TurnwiseError(f"cannot load {what} from {kind} {str(path)!r}: {first_line(error)}\n{remedy}") from error
    return model.requires_grad_(False) if quantise else model.to(device)


def load_tokenizer(path: str | Path, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer beside a model.

    Raises:
        TurnwiseError: there is none, with the remedy.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise TurnwiseError(
            f"{str(path)!r} has a model but no usable tokenizer: {first_line(error)}\n"
            "Save it beside the weights: AutoTokenizer.from_pretrained(BASE).save_pretrained(FOLDER)."
        ) from error


def find_device(name: str) -> str:
    """The Torch device of this name; ``auto`` stands for the accelerator that PyTorch finds, or the CPU if there is none.

    Raises:
        TurnwiseError: there is no such device here, with those there are.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    there = ["cpu"]
    if accelerator is not None:
        there += [f"{accelerator.type}:{index}" for index in range(torch.accelerator.device_count())]
    if name == "auto":
        return there[min(1, len(there) - 1)]
    if name in there or (accelerator is not None and name == accelerator.type):
        return name
    found = f"PyTorch {torch.__version__} finds {', '.join(there)}"
    remedy = "; a CUDA device needs an NVIDIA driver and a CUDA build of PyTorch" if name.startswith("cuda") else ""
    raise TurnwiseError(f"there is no device {name!r} here: {found}{remedy}. Use one of them, or auto")


def context_limit(config: Any) -> int:
    """Longest context that a model with this text configuration reads the same whatever is read beside it, in tokens."""
    limit = int(getattr(config, "max_position_embeddings", None) or 4096)
    rope = getattr(config, "rope_parameters", None) or {}
    for kind in (rope, *(part for part in rope.values() if isinstance(part, dict))):
        if kind.get("rope_type") in ("dynamic", "longrope"):
            limit = min(limit, int(kind.get("original_max_position_embeddings") or limit))
    return limit


def underlying(model: Any) -> Any:
    """The Hugging Face model inside a PEFT model, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of transformers in the middle of ours."""
    from transformers.utils import logging as hf_logging

    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _quantisation(quantise: str, dtype: str) -> Any:
    """NF4 with double quantisation, as in QLoRA (arXiv 2305.14314, section 3), or LLM.int8() (arXiv 2208.07339)."""
    if quantise not in ("4bit", "8bit"):
        raise TurnwiseError(f"quantise={quantise!r}; use '4bit', '8bit', or nothing for the weights as they are")
    try:
        import bitsandbytes  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise TurnwiseError(f'quantise={quantise!r} needs bitsandbytes: pip install "turnwise[quantised]"') from error
    from transformers import BitsAndBytesConfig

    if quantise == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
