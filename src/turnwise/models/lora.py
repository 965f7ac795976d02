"""LoRA adapters through PEFT: new ones, stored ones, and what a line of settings says about them."""

from __future__ import annotations

import copy
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from turnwise.errors import TurnwiseError


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """The shape of a LoRA adapter (arXiv 2106.09685): W + (alpha / rank) · B A with B (out, rank) and A (rank, in).

    Attributes:
        rank: Rank of the update.
        alpha: Its scale; twice the rank by default.
        dropout: Chance that an input of the adapter is dropped while gradients are taken. Whatever is only looked at,
            log-probabilities of a rollout included, is computed without.
        targets: Names, or ends of names, of the layers that get one; all linear layers by default.

    Raises:
        TurnwiseError: a rank below 1, an alpha that is not positive, or a dropout outside [0, 1).
    """

    rank: int
    alpha: float | None = None
    dropout: float = 0.0
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise TurnwiseError(f"LoRA rank {self.rank}: an adapter needs a rank of at least 1; 16 is usual")
        if self.alpha is not None and not self.alpha > 0:
            raise TurnwiseError(f"LoRA alpha {self.alpha}: would erase or flip the adapter; twice the rank is usual")
        if not 0 <= self.dropout < 1:
            raise TurnwiseError(f"LoRA dropout {self.dropout}: a probability below 1; 0 or 0.05 is usual")


def lora_spec(text: int | str | LoraSettings) -> LoraSettings | None:
    """The settings that a line such as ``r=16,alpha=32,dropout=0.05,targets=q_proj+v_proj`` stands for; None for no adapter.

    Args:
        text: A rank alone, such settings, or 0 or nothing for no adapter.

    Raises:
        TurnwiseError: a key that does not exist or comes twice, or a value that is not a number, with the remedy.
    """
    if isinstance(text, LoraSettings):
        return text
    text = str(text).strip()
    if text in ("", "0"):
        return None
    example = "write a rank (16), or r=16,alpha=32,dropout=0.05,targets=q_proj+v_proj"
    found: dict[str, str] = {}
    for part in (text if "=" in text else f"r={text}").split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        key = {"rank": "r", "lora_alpha": "alpha", "lora_dropout": "dropout"}.get(key, key)
        if not equals or not value or key not in ("r", "alpha", "dropout", "targets"):
            raise TurnwiseError(f"LoRA settings {text!r}: cannot read {part.strip()!r}; {example}")
        if key in found:
            raise TurnwiseError(f"LoRA settings {text!r}: {key} is given twice")
        found[key] = value
    if "r" not in found:
        raise TurnwiseError(f"LoRA settings {text!r} name no rank; {example}")
    try:
        rank, alpha, dropout = int(found["r"]), found.get("alpha"), float(found.get("dropout", 0))
        targets = tuple(name.strip() for name in found.get("targets", "").split("+") if name.strip())
        return LoraSettings(rank, None if alpha is None else float(alpha), dropout, targets)
    except ValueError as error:
        raise TurnwiseError(f"LoRA settings {text!r}: {error}; {example}") from error


def with_lora(
    model: Any, settings: int | str | LoraSettings, *, seed: int = 0, task: str = "CAUSAL_LM", head: Sequence[str] = ()
) -> Any:
    """The model with a LoRA adapter.

    The adapter changes nothing at first; its random half is drawn from `seed`, and the global random state is left alone.

    Args:
        model: A Hugging Face model.
        settings: See `lora_spec`; at least a rank.
        seed: Of the random half.
        task: PEFT's name of what the model does.
        head: Modules that are trained in full and stored with the adapter.

    Raises:
        TurnwiseError: settings that cannot work, no layer of the model has a name among the targets, or PEFT is missing.
    """
    spec = lora_spec(settings)
    if spec is None:
        raise TurnwiseError("an adapter of rank 0 is none; give a rank of at least 1")
    with _peft() as peft, torch.random.fork_rng():
        torch.manual_seed(seed)
        config = peft.LoraConfig(
            r=spec.rank,
            lora_alpha=spec.alpha if spec.alpha is not None else 2 * spec.rank,
            lora_dropout=spec.dropout,
            target_modules=list(spec.targets) or "all-linear",
            task_type=task,
            modules_to_save=list(head) or None,
        )
        try:
            return peft.get_peft_model(model, config)
        except ValueError as error:
            names = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, nn.Linear)}
            raise TurnwiseError(
                f"no LoRA adapter can be put on {'+'.join(spec.targets) or 'the linear layers'} of "
                f"{type(model).__name__}; its linear layers are {sorted(names)}"
            ) from error


def with_stored_adapter(model: Any, folder: Path) -> Any:
    """The model with the adapter of a folder, which goes on to be trained."""
    with _peft() as peft:
        return peft.PeftModel.from_pretrained(model, str(folder), is_trainable=True)


def stored_adapter(folder: Path) -> tuple[str, str] | None:
    """Base model and task of the adapter in a folder; None where there is no adapter.

    Raises:
        TurnwiseError: the adapter does not say which model it belongs to, or PEFT is missing.
    """
    if not (folder / "adapter_config.json").exists():
        return None
    with _peft() as peft:
        config = peft.PeftConfig.from_pretrained(str(folder))
    if not config.base_model_name_or_path:
        raise TurnwiseError(
            f"{str(folder)!r} holds an adapter whose adapter_config.json does not say which base model it belongs to"
        )
    return str(config.base_model_name_or_path), str(config.task_type)


def merged(model: Any) -> Any:
    """A copy of a PEFT model with the adapter folded into its weights.

    Raises:
        TurnwiseError: the weights are quantised, and would be rounded once more.
    """
    if getattr(model.get_base_model(), "is_quantized", False):
        raise TurnwiseError(
            "an adapter cannot be folded into weights of 4 or 8 bits without rounding them again; save the adapter, then load it "
            "without quantise and save that merged"
        )
    return copy.deepcopy(model).merge_and_unload()


def is_fresh(model: Any) -> bool:
    """The adapter adds nothing: it is LoRA, and the halves that start at zero are still there."""
    halves = [parameter for name, parameter in model.named_parameters() if "lora_" in name and "_B." in name]
    return bool(halves) and not any(bool(half.any()) for half in halves)


class AdapterDropout:
    """Switches an adapter's dropout on while gradients are taken, and off everywhere else.

    Its noise is a function of the adapter's weights and of the tokens that are read, so that a resumed run repeats it, and
    the global random state is left alone.

    Args:
        model: A PEFT model, or any other, for which nothing happens.
    """

    def __init__(self, model: Any) -> None:
        named = model.named_modules() if hasattr(model, "peft_config") else ()
        self._parts = [part for name, part in named if "lora_dropout" in name and isinstance(part, nn.Dropout)]
        self._weights = [p for name, p in model.named_parameters() if "lora_A" in name] if self._parts else []

    @property
    def active(self) -> bool:
        """A forward pass would drop something now."""
        return bool(self._parts) and torch.is_grad_enabled()

    @contextmanager
    def on(self, tokens: Tensor) -> Iterator[None]:
        """Around a forward pass that reads `tokens`."""
        if not self.active:
            yield
            return
        state = tokens.cpu().numpy().tobytes() + self._weights[-1].detach().float().cpu().numpy().tobytes()
        devices = [tokens.device.index or 0] if tokens.is_cuda else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(zlib.crc32(state))
            for part in self._parts:
                part.train()
            try:
                yield
            finally:
                for part in self._parts:
                    part.eval()


@contextmanager
def _peft() -> Iterator[Any]:
    """The package, without its warnings about what transformers is going to rename."""
    try:
        import peft
    except ImportError as error:
        raise TurnwiseError('LoRA needs PEFT: pip install "turnwise[lora]"') from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield peft
