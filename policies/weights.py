"""Which weights a stage trains, and the other sets that it can compute with.

A stage trains a LoRA adapter of its own name (or, without one, every parameter). Adapters of earlier stages stay on,
frozen. So the *reference*, the policy that the stage began with, costs nothing: it is the same network with the
stage's adapter off. Fully trained parameters keep a frozen copy instead: all of them without an adapter, and beside
one those of the few layers that a policy trains as a whole, which later stages go on training.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import torch
from diffusers.training_utils import EMAModel
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from policies.errors import PolicyError
from policies.grown_adapter import grown
from policies.memory import HOME, host_copies
from policies.settings import LoraSettings

WeightSet = Literal["current", "reference", "ema", "old"]


class Access(Protocol):
    """How parameters' whole values are read and overwritten; several processes may hold a part of each."""

    def read(self, parameters: Sequence[nn.Parameter]) -> Iterator[Tensor]:
        """One after another: of parameters that are divided only a few are whole at a time."""
        ...

    def write(self, parameter: nn.Parameter, value: Tensor) -> None: ...


class WholeParameters:
    """Each process holds every parameter as a whole."""

    def read(self, parameters: Sequence[nn.Parameter]) -> Iterator[Tensor]:
        return (parameter.detach() for parameter in parameters)

    @torch.no_grad()
    def write(self, parameter: nn.Parameter, value: Tensor) -> None:
        parameter.copy_(value)


class StageWeights:
    """The trained parameters of one stage on top of the frozen result of the stages before it.

    Args:
        module: the network, with the base model's weights.
        targets: regular expression of the layers that get an adapter.
        whole: regular expression of the parameters that are trained beside adapters, as they are; none by default.

    Attributes:
        access: how parameters are read and overwritten; an engine that divides them replaces it. Then every process
            must make the same calls of this class.
    """

    def __init__(self, module: nn.Module, targets: str, whole: str | None = None) -> None:
        self.module, self.targets, self.whole = module, targets, whole
        self.lora: LoraSettings | None = None
        self.earlier: list[str] = []
        self.stage: str | None = None
        self.parameters: dict[str, nn.Parameter] = {}
        self.access: Access = WholeParameters()
        self._shapes: dict[str, torch.Size] = {}
        self._initial: dict[str, Tensor] = {}
        self._swaps_reference = False
        self._ema: EMAModel | None = None
        self._old: dict[str, Tensor] = {}
        module.requires_grad_(False)

    def begin(self, stage: str, seed: int, lora: LoraSettings | None, *, reference: bool = True) -> None:
        """Start to train a stage; what was trained before becomes part of its reference.

        Args:
            stage: its name, and that of its adapter.
            seed: of the adapter's first weights.
            lora: the adapter's shape; none trains every parameter, which needs a network without adapters.
            reference: whether the policy that the stage began with will be asked for. Of parameters that are trained as
                they are, that takes a copy, which waits in host memory.
        """
        if self.stage is not None and self.lora is not None:
            self.earlier.append(self.stage)
        if stage in self.earlier:
            raise PolicyError(f"the weights that stage {stage} begins with hold an adapter of that name already")
        if lora is None and self.earlier:
            raise PolicyError(
                f"stage {stage} cannot train every parameter on top of the adapters {', '.join(self.earlier)}"
            )
        self.stage, self.lora, self._ema, self._old = stage, lora, None, {}
        if lora is None:
            self.module.requires_grad_(True)
            self.parameters = dict(self.module.named_parameters())
        else:
            self.parameters = self._add_adapter(stage, seed, lora)
        self._swaps_reference = lora is None
        self._keep_initial(lora is None, reference=reference)
        self._shapes = {name: parameter.shape for name, parameter in self.parameters.items()}

    def take_up(self, state: Mapping[str, Tensor], lora: LoraSettings, *, reference: bool = True) -> None:
        """Let another stage's adapter, which is not below this one, enter this stage's: it begins as that one ended.

        All of it is trained then, so the reference is a copy of what it begins with.

        Args:
            state: what ``adapter_state`` of that stage handed out.
            lora: that adapter's shape.
            reference: as for ``begin``.

        Raises:
            PolicyError: this stage has no adapter, a smaller one, or one on other layers.
        """
        if self.lora is None:
            raise PolicyError(f"stage {self.stage} has no adapter that another could enter")
        self.load_adapter_state(grown(state, self._handed_over(self.state()), lora, self.lora))
        self._swaps_reference = True
        self._keep_initial(True, reference=reference)

    def _keep_initial(self, everything: bool, *, reference: bool) -> None:
        """Copies of what the reference needs and the stage is going to change."""
        self._initial = {
            name: parameter.detach().to("cpu", copy=True)
            for name, parameter in self.parameters.items()
            if reference and (everything or self._is_whole(name))
        }

    def _add_adapter(self, stage: str, seed: int, lora: LoraSettings) -> dict[str, nn.Parameter]:
        config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=self.targets, lora_dropout=0.0)
        with torch.random.fork_rng(devices=[]):
            # peft draws the A matrices from the CPU's generator; torch.manual_seed would seed the GPU's as well
            torch.default_generator.manual_seed(seed)
            inject_adapter_in_model(config, self.module, adapter_name=stage)
        self._activate([*self.earlier, stage])
        found = {name: parameter for name, parameter in self.module.named_parameters() if parameter.requires_grad}
        if all(self._is_whole(name) for name in found):
            raise PolicyError(f"no layer of {type(self.module).__name__} matches the adapter targets {self.targets!r}")
        for parameter in found.values():
            parameter.data = (
                parameter.data.float()
            )  # what is trained stays in full precision over a half-precision base
        return found

    def _activate(self, adapters: list[str]) -> None:
        """Switch adapters on, in order; only the stage's own ever has gradients."""
        for layer in self._adapted():
            layer.set_adapter(adapters)
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(self._is_own(name) or self._is_whole(name))

    def _adapted(self) -> list[Any]:
        """The layers that have adapters, as peft wraps them."""
        return [layer for layer in self.module.modules() if isinstance(layer, BaseTunerLayer)]

    def _is_own(self, name: str) -> bool:
        """Whether a parameter belongs to the stage's adapter."""
        return f".lora_A.{self.stage}." in name or f".lora_B.{self.stage}." in name

    def _is_whole(self, name: str) -> bool:
        """Whether a parameter is trained as it is, beside the adapter."""
        return self.whole is not None and re.fullmatch(self.whole, name) is not None

    @contextmanager
    def use(self, which: WeightSet) -> Iterator[None]:
        """Compute with other weights inside the block; afterwards every bit is as before.

        Raises:
            PolicyError: no old weights are kept.
        """
        if which == "current" or (which == "ema" and self._ema is None):
            yield
        elif any(layer.merged for layer in self._adapted()):
            raise PolicyError(f"the {which} weights cannot be used while adapters are merged into the network")
        elif which == "reference":
            yield from self._at_the_beginning()
        else:
            yield from self._swapped({"ema": self.ema_state, "old": self.old_state}[which]())

    def _at_the_beginning(self) -> Iterator[None]:
        """The stage's adapter off, and what is trained as it is as it was."""
        if not self._initial and (self._swaps_reference or self.whole is not None):
            raise PolicyError(f"stage {self.stage} was begun without a reference")
        if self._swaps_reference:
            yield from self._swapped(self._initial)
            return
        self._activate(self.earlier)
        try:
            if self._initial:
                yield from self._swapped(self._initial)
            else:
                yield
        finally:
            self._activate([*self.earlier, *([self.stage] if self.stage else [])])

    def _swapped(self, other: Mapping[str, Tensor]) -> Iterator[None]:
        """Other values of some of the trained parameters."""
        present = [self.parameters[name] for name in other]
        saved = {name: value.clone() for name, value in zip(other, self.access.read(present), strict=True)}
        self._write(other)
        try:
            yield
        finally:
            self._write(saved)

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Compute without gradients as one network inside the block: what adapters add is added to its weights.

        No adapter is computed then, which saves their time; the sums are rounded in another way. The weights from
        before wait in host memory, and afterwards every bit is as it was.

        Raises:
            PolicyError: a weight is not all here, or is stored in 8 bits.
        """
        layers = self._adapted()
        before = [self._mergeable(layer).detach().to(HOME, copy=True) for layer in layers]
        try:
            with torch.no_grad():
                for layer in layers:
                    layer.merge()
            yield
        finally:
            for layer, weight in zip(layers, before, strict=True):
                layer.get_base_layer().weight.data.copy_(weight)  # peft's way back subtracts, and leaves its rounding
                layer.merged_adapters.clear()

    def _mergeable(self, layer: Any) -> Tensor:
        weight = layer.get_base_layer().weight
        if not isinstance(self.access, WholeParameters) or type(weight.data) is not Tensor:
            raise PolicyError(
                "adapters can be merged into weights that every process holds as a whole and in floating point; set "
                "merge_adapters: false, or do without quantize and with another engine"
            )
        return weight

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Overwrite the trained parameters; every name must be there.

        Raises:
            PolicyError: names or shapes differ.
        """
        if state.keys() != self.parameters.keys():
            odd = sorted(state.keys() ^ self.parameters.keys())
            raise PolicyError(
                f"the saved weights do not fit this model: {len(odd)} names differ, the first is {odd[0]!r}"
            )
        for name, shape in self._shapes.items():
            if state[name].shape != shape:
                raise PolicyError(f"{name}: saved with shape {tuple(state[name].shape)}, here it is {tuple(shape)}")
        self._write(state)

    def _write(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.access.write(self.parameters[name], value)

    def each(self) -> Iterator[tuple[str, Tensor]]:
        """The trained parameters as they are now, by name, one after another."""
        return zip(self.parameters, self.access.read(list(self.parameters.values())), strict=True)

    def state(self) -> dict[str, Tensor]:
        """The trained parameters as they are now."""
        return dict(self.each())

    def start_ema(self, decay: float) -> None:
        """Begin a running average; ``min_decay`` keeps diffusers from ramping the decay up over hundreds of steps."""
        self._ema = EMAModel(self.parameters.values(), decay=decay, min_decay=decay)

    def update_ema(self) -> None:
        if self._ema is not None:
            self._ema.step([nn.Parameter(value) for value in self.state().values()])

    def ema_state(self) -> dict[str, Tensor]:
        """The averaged parameters; the current ones where no average is kept."""
        return self.state() if self._ema is None else dict(zip(self.parameters, self._ema.shadow_params, strict=True))

    def found_again(self) -> None:
        """Look up the trained parameters by name, after an engine replaced those of the module by parts of them."""
        present = dict(self.module.named_parameters())
        self.parameters = {name: present[name] for name in self.parameters}

    def load_ema(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Continue a running average after ``updates`` updates."""
        if self._ema is not None:
            self._ema.shadow_params = [
                state[name].to(parameter.device, copy=True) for name, parameter in self.parameters.items()
            ]
            self._ema.optimization_step = updates

    def start_old(self) -> None:
        """Keep a second set of weights from now on, at first equal to the trained ones."""
        self._old = {name: value.clone() for name, value in self.state().items()}

    @torch.no_grad()
    def update_old(self, decay: float) -> None:
        """Let the old weights follow: old ← decay·old + (1 − decay)·current."""
        now = self.state()
        self._old = {name: decay * value + (1 - decay) * now[name] for name, value in self.old_state().items()}

    def old_state(self) -> dict[str, Tensor]:
        """The old weights.

        Raises:
            PolicyError: none are kept.
        """
        if not self._old:
            raise PolicyError(f"stage {self.stage} keeps no old weights: its objective must say that it uses them")
        return self._old

    def load_old(self, state: Mapping[str, Tensor]) -> None:
        """Continue with saved old weights."""
        self._old = {name: state[name].to(value.device, copy=True) for name, value in self.old_state().items()}

    @property
    def keeps_old(self) -> bool:
        return bool(self._old)

    def adapter_state(self, *, keep: bool = True) -> dict[str, Tensor]:
        """The weights to hand over (averaged, if an average is kept), under the names that peft and diffusers use.

        Args:
            keep: as for ``host_copies``.

        Returns:
            Copies in host memory.
        """
        state = host_copies(self.each() if self._ema is None else self.ema_state().items(), keep=keep)
        return self._handed_over(state) if keep else state

    def _handed_over(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Trained parameters under the names of peft and diffusers."""
        if self.lora is None:
            return state
        whole = {name: value for name, value in state.items() if self._is_whole(name)}
        return get_peft_model_state_dict(self.module, state, adapter_name=self.stage or "") | whole

    def load_adapter_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over the weights that ``adapter_state`` handed out."""
        if self.lora is None:
            self.load(state)
            return
        if odd := sorted(state.keys() ^ self._handed_over(self.state()).keys()):
            what = "unexpected" if odd[0] in state else "missing"
            raise PolicyError(f"the adapter does not fit this model: {len(odd)} names differ, {what} {odd[0]!r}")
        self._write({name: value for name, value in state.items() if self._is_whole(name)})
        adapter = {name: value for name, value in state.items() if not self._is_whole(name)}
        set_peft_model_state_dict(self.module, adapter, adapter_name=self.stage or "")
