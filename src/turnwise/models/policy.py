"""A policy: a Hugging Face causal language model, its tokenizer, a renderer and, if asked for, a value head.

`Policy.outputs` is the only place where logits are shifted: what is said about token t is read at position t-1.
The head runs at those positions alone, so a batch costs no logits for tokens that nobody sampled.

What this file leaves out: optimisation (learners), sampling (engines), and any knowledge of rewards.
"""

from __future__ import annotations

import copy
import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from turnwise.batch import Batch, Outputs
from turnwise.errors import TurnwiseError
from turnwise.models import attention
from turnwise.models.attention import Packed, Plan, UnsupportedAttentionError
from turnwise.models.distribution import Sampling, entropy, log_probs
from turnwise.text import Renderer

VALUE_HEAD = "value_head.safetensors"
"""File beside the model's own that holds the value head."""

log = logging.getLogger(__name__)


class Policy:
    """A causal language model that acts.

    Args:
        model: Any Hugging Face causal LM (or a PEFT model around one).
        tokenizer: Its tokenizer.
        renderer: Turns observations into token deltas; read off the chat template by default.
        value_head: Add a linear value head on the last hidden state, starting at zero.
        sampling: The distribution actions are drawn from. It belongs to the policy, because log-probabilities
            are those of the distribution really sampled.

    Attributes:
        packed: Sequences run packed through our attention function; otherwise they are padded and run through the
            model's own forward, slower and just as right.
        banned: (B,) ids that are never sampled: ``generation_config.suppress_tokens``.
        context_limit: Longest context the model can read, in tokens. A model whose rotary embedding changes with the
            longest context it has seen (dynamic, longrope) is held to the length below which it does not: beyond it, what
            is said about a context depends on what was read beside it.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        renderer: Renderer | None = None,
        value_head: bool = False,
        sampling: Sampling | None = None,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.renderer = renderer or Renderer(tokenizer)
        self.sampling = sampling or Sampling()
        config = model.config.get_text_config()
        self.hidden_size = int(config.hidden_size)
        self.context_limit = _context_limit(config)
        device = next(model.parameters()).device
        suppressed = getattr(model.generation_config, "suppress_tokens", None) or []
        self.banned = torch.tensor(sorted(suppressed), dtype=torch.int64, device=device)
        self.value_head: nn.Linear | None = None
        if value_head:
            self.add_value_head()
        self._adapter_off = False
        self._exact = False
        self._keeps = "logits_to_keep" in inspect.signature(_base(model).forward).parameters
        self.packed = verify_packing(self)

    # ---- construction and storage ------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        value_head: bool = False,
        lora: int = 0,
        dtype: str = "float32",
        device: str = "cpu",
        sampling: Sampling | None = None,
        system: str | None = None,
        template: str | None = None,
        trust_remote_code: bool = False,
    ) -> Policy:
        """Load a Hugging Face folder or hub id.

        Args:
            path: Folder or id. A folder that holds a LoRA adapter alone is put on the base model that it names.
            value_head: Load the folder's value head if it has one, else start one at zero.
            lora: Rank of a new LoRA adapter on all linear layers; 0 trains the whole model. A stored adapter is
                trained on instead.
            dtype: Torch dtype name of the weights.
            device: Torch device.
            sampling: See `Policy`.
            system: System message of every episode.
            template: Chat template that replaces the tokenizer's own.
            trust_remote_code: Run modelling code that comes with the weights. Off unless asked for.

        Raises:
            TurnwiseError: no such model, no tokenizer beside it, or a missing extra, each with the remedy.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = Path(path)
        adapter = (folder / "adapter_config.json").exists()
        try:
            base = _base_of(folder) if adapter else path
            with _quiet():
                loaded: Any = AutoModelForCausalLM.from_pretrained(
                    base, dtype=getattr(torch, dtype), trust_remote_code=trust_remote_code
                )
                model = loaded.to(device)
        except (OSError, ValueError) as error:
            kind = "folder" if folder.exists() else "folder or hub id"
            raise TurnwiseError(
                f"cannot load a causal language model from {kind} {str(path)!r}: {_first_line(error)}\n"
                "A model folder holds config.json and *.safetensors; `--model tiny` builds one from scratch."
            ) from error
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
        except (OSError, ValueError) as error:
            raise TurnwiseError(
                f"{str(path)!r} has a model but no usable tokenizer: {_first_line(error)}\n"
                "Save it beside the weights: AutoTokenizer.from_pretrained(BASE).save_pretrained(FOLDER)."
            ) from error
        if adapter:
            model = _with_stored_adapter(model, folder)
        elif lora:
            model = with_lora(model, lora)
        renderer = Renderer(tokenizer, system=system, template=template)
        policy = cls(model, tokenizer, renderer=renderer, value_head=value_head, sampling=sampling)
        stored = folder / VALUE_HEAD
        if policy.value_head is not None and stored.exists():
            policy.value_head.load_state_dict(load_file(stored, device=device))
        return policy

    def save(self, folder: str | Path, *, merge: bool = False) -> None:
        """Write a Hugging Face folder; the value head goes beside it in a file of its own.

        Args:
            folder: Where to.
            merge: Fold a LoRA adapter into the weights; otherwise only the adapter is written, as PEFT writes it. One on
                a model that was never stored anywhere is always folded in: nobody could load it otherwise.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self.has_adapter and not _base(self.model).name_or_path:
            merge = True
        model = copy.deepcopy(self.model).merge_and_unload() if merge and self.has_adapter else self.model
        with _quiet():
            model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        if self.value_head is not None:
            save_file({name: t.contiguous() for name, t in self.value_head.state_dict().items()}, folder / VALUE_HEAD)

    def add_value_head(self) -> None:
        """Start a value head at zero, unless there is one."""
        if self.value_head is None:
            # Without an initialisation of its own, which would draw from the global random state.
            head = cast("nn.Linear", nn.utils.skip_init(nn.Linear, self.hidden_size, 1, device=self.device))
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
            self.value_head = head

    def reference(self) -> Policy:
        """A frozen copy of the policy as it is now, to measure KL against.

        Under a LoRA adapter that has not learnt anything yet it shares the weights, with the adapter switched off; any
        other adapter is part of what is copied.

        Where it could not have sampled a token (top-k, top-p) its log-probability is -inf, as the divergence demands.
        """
        frozen = copy.copy(self)
        frozen.value_head = None
        frozen._exact = True
        if self.has_adapter and _is_fresh(self.model):
            frozen._adapter_off = True
            return frozen
        frozen.model = copy.deepcopy(self.model).requires_grad_(False)
        return frozen

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def greedy(self) -> bool:
        """It takes the most likely token, so that its log-probabilities have no gradient."""
        return self.sampling.temperature == 0

    @property
    def has_adapter(self) -> bool:
        """The model is a PEFT model, whose adapter can be switched off."""
        return hasattr(self.model, "peft_config") and hasattr(self.model, "disable_adapter")

    def parameters(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name, the value head's included."""
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        if self.value_head is not None:
            named |= {f"value_head.{name}": p for name, p in self.value_head.named_parameters()}
        return named

    # ---- forward -----------------------------------------------------------------------------------------------------

    def outputs(self, batch: Batch) -> Outputs:
        """Log-probabilities, entropies and values of a batch, with gradients if they are enabled.

        An action token outside the support of the sampling distribution counts as part of it (see `log_probs`).

        Raises:
            TurnwiseError: an action token at the start of a sequence, which nothing predicts.
        """
        batch = batch.to(self.device)
        wanted = batch.action | batch.final
        where = wanted.nonzero().squeeze(1)
        if bool((batch.positions[where] == 0).any()):
            raise TurnwiseError(
                "a sequence begins with a sampled token, which nothing predicts; "
                "give the first observation at least one token"
            )
        is_action = batch.action[where]
        logits, hidden = self.forward(batch, where - 1)
        taken = batch.tokens[batch.action]
        logp = log_probs(logits[is_action], self.sampling, self.banned, None if self._exact else taken)
        value = final = None
        if self.value_head is not None:
            values = self.value_head(hidden.to(self.value_head.weight.dtype)).squeeze(-1).float()
            value, final = values[is_action], values[~is_action]
        return Outputs(
            logp=logp.gather(-1, taken[:, None]).squeeze(-1), entropy=entropy(logp), value=value, final_value=final
        )

    def forward(self, batch: Batch, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, V) and last hidden states (N, d) at packed `positions` (N,)."""
        if self.packed:
            plan = Packed.of(batch.cu_seqlens, batch.positions, batch.sequence)
            return self.run(batch.tokens, batch.positions, plan, positions)
        lengths, n, longest = batch.lengths, len(batch), int(batch.lengths.max())
        rows = batch.sequence * longest + batch.positions
        ids = torch.zeros(n * longest, dtype=torch.int64, device=self.device).index_copy(0, rows, batch.tokens)
        mask = torch.arange(longest, device=self.device) < lengths[:, None]
        with self._capture() as captured, self._adapter():
            logits = self.model(input_ids=ids.view(n, longest), attention_mask=mask.long(), use_cache=False).logits
        picked = rows[positions]
        return logits.reshape(n * longest, -1)[picked], captured[0].reshape(n * longest, -1)[picked]

    def run(self, ids: Tensor, positions: Tensor, plan: Plan, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Packed forward of (T,) ids at (T,) positions under `plan`; logits and hidden states at `keep` (N,)."""
        extra = {"logits_to_keep": keep} if self._keeps else {}
        with self._capture() as captured, self._adapter():
            logits = self.model(
                input_ids=ids[None], position_ids=positions[None], use_cache=False, plan=plan, **extra
            ).logits
        hidden = captured[0]
        if not self._keeps:
            logits, hidden = logits[:, keep], hidden[:, keep]
        return logits[0], hidden[0]

    @contextmanager
    def _capture(self) -> Iterator[list[Tensor]]:
        """Catch what enters the output head: the last hidden states, whatever the architecture calls them."""
        captured: list[Tensor] = []
        head = self.model.get_output_embeddings()
        handle = head.register_forward_pre_hook(lambda _module, args: captured.append(args[0]))
        try:
            yield captured
        finally:
            handle.remove()

    def _adapter(self) -> Any:
        return self.model.disable_adapter() if self._adapter_off else nullcontext()

    def with_sampling(self, **changes: Any) -> Policy:
        """The same weights with another sampling distribution."""
        other = copy.copy(self)
        other.sampling = replace(self.sampling, **changes)
        return other


def verify_packing(policy: Policy, *, tolerance: float = 1e-4) -> bool:
    """Whether the model's forward, packed through our attention, equals its own forward sequence by sequence.

    Two random sequences are run both ways. A model with an attention variant that the packed function does not compute
    (ALiBi, sinks, sliding windows, recurrent layers …) differs or refuses, and keeps its own forward.

    Args:
        policy: The policy to try.
        tolerance: Largest difference of the logits, relative to the largest logit, in float32; 16-bit weights may differ
            500 times as much.
    """
    model = policy.model
    attention.register()
    before = model.config._attn_implementation
    generator = torch.Generator().manual_seed(0)
    vocabulary = int(model.config.get_text_config().vocab_size)
    parts = [torch.randint(0, vocabulary, (n,), generator=generator).to(policy.device) for n in (11, 7)]
    with torch.no_grad():
        if before == attention.NAME:
            model.set_attn_implementation("sdpa")
        try:
            own = torch.cat([model(input_ids=part[None], use_cache=False).logits[0] for part in parts])
            model.set_attn_implementation(attention.NAME)
            positions = torch.cat([torch.arange(len(part), device=policy.device) for part in parts])
            cu = torch.tensor([0, 11, 18], device=policy.device)
            sequence = torch.repeat_interleave(torch.arange(2, device=policy.device), cu.diff())
            plan = Packed.of(cu, positions, sequence)
            every = torch.arange(18, device=policy.device)
            packed = policy.run(torch.cat(parts), positions, plan, every)[0]
        except (UnsupportedAttentionError, ValueError, TypeError, RuntimeError) as error:
            reason = _first_line(error)
        else:
            scale = max(1.0, float(own.abs().max()))
            error_size = float((packed.float() - own.float()).abs().max()) / scale
            exact = next(model.parameters()).dtype == torch.float32
            loose = tolerance if exact else 500 * tolerance
            layers = int(model.config.get_text_config().num_hidden_layers)
            if error_size <= loose and plan.calls == layers:
                return True
            reason = f"logits differ by {error_size:.2g}, attention ran {plan.calls} times for {layers} layers"
        own_attention = before if before not in (None, attention.NAME) else "eager"
        model.set_attn_implementation(own_attention)
    log.warning("%s runs padded through its own forward (slower, just as right): %s", type(model).__name__, reason)
    return False


def with_lora(model: Any, rank: int, *, seed: int = 0) -> Any:
    """The model with a LoRA adapter of `rank` on all its linear layers (alpha = 2 · rank).

    The adapter changes nothing at first; its random half is drawn from `seed`, and the global random state is left alone.
    """
    with _peft() as peft, torch.random.fork_rng():
        torch.manual_seed(seed)
        return peft.get_peft_model(
            model, peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
        )


def _is_fresh(model: Any) -> bool:
    """The adapter adds nothing: it is LoRA, and the halves that start at zero are still there."""
    halves = [parameter for name, parameter in model.named_parameters() if "lora_" in name and "_B." in name]
    return bool(halves) and not any(bool(half.any()) for half in halves)


def _with_stored_adapter(model: Any, folder: Path) -> Any:
    with _peft() as peft:
        return peft.PeftModel.from_pretrained(model, str(folder), is_trainable=True)


def _base_of(folder: Path) -> str:
    with _peft() as peft:
        base = peft.PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    if not base:
        raise ValueError("its adapter_config.json does not say which base model it belongs to")
    return str(base)


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


def _context_limit(config: Any) -> int:
    limit = int(getattr(config, "max_position_embeddings", None) or 4096)
    rope = getattr(config, "rope_parameters", None) or {}
    for kind in (rope, *(part for part in rope.values() if isinstance(part, dict))):
        if kind.get("rope_type") in ("dynamic", "longrope"):
            limit = min(limit, int(kind.get("original_max_position_embeddings") or limit))
    return limit


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of transformers in the middle of ours."""
    from transformers.utils import logging as hf_logging

    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
