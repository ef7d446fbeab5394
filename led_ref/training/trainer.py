"""The loop of a training: batches, gradients, clipping, a step of the optimizer, the log, validation, the checkpoint.

    out/config.json, model.safetensors, ...     the model: with held-out documents the best one, else the last
    out/adapter/                                with LoRA: the matrices alone, in peft's files; `out` itself is merged
    out/last/                                   the last model, where the best one is another
    out/checkpoint.safetensors                  how a run that was cut off goes on (run_state.py)
    out/log.jsonl                               a line for each step and validation (log.py)
    out/training.json                           the settings, and the data's fingerprint

A step whose loss or gradient is not finite is not taken: the weights stay as they are, the log says which documents it had,
and after `max_skipped_steps` of them in a row the training stops with an error.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from led_ref.classes.pretrained import device_errors
from led_ref.errors import InputError, SettingsError
from led_ref.model.dropout import DropoutRates
from led_ref.tokenizer.tokenizer import LEDTokenizer
from led_ref.training.accumulator import GradientAccumulator
from led_ref.training.batch import Trainable
from led_ref.training.batches import BatchPlan, GlobalMask, Step, check_global_masks, global_mask
from led_ref.training.clipping import clip_factor, squared_norm
from led_ref.training.data import Dataset
from led_ref.training.log import TrainingLog
from led_ref.training.lora import check_lora, lora_weights
from led_ref.training.loss_scale import LOWEST, LossScale
from led_ref.training.optimizers import Adafactor, AdamW, Optimizer, initial_state, restored_state
from led_ref.training.processes import Processes
from led_ref.training.run_folder import RunFolder
from led_ref.training.run_state import Progress
from led_ref.training.schedules import Schedule
from led_ref.training.settings import RunArguments, TrainingArguments
from led_ref.training.step import StepGradients
from led_ref.training.targets import LossSum, fetched
from led_ref.training.trained import as_trained, in_float16, whole_weights
from led_ref.training.validation import check_metric, validate

_DOCUMENTS_NAMED = 20
_SAME_BITS = ("training.keep_activations", "training.processes")  # they take other memory and time only
_LENGTH = ("training.num_train_epochs", "training.max_steps")

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Trained:
    """What came out of a training.

    Args:
        out: the folder of the model.
        steps: of the optimizer, those of a run before `resume` too.
        skipped_steps: those of them that were not taken.
        loss: of the last step that was taken; None if this call took none.
        metric: which measure chose the model; None without held-out documents.
        best: the best value of it.
        best_step: after which step.
        stopped_early: whether it stopped since no validation was better.
        seconds: of this call.
    """

    out: str
    steps: int
    skipped_steps: int
    loss: float | None
    metric: str | None
    best: float | None
    best_step: int | None
    stopped_early: bool
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-ready."""
        return asdict(self)


def run_training(
    model: Trainable,
    tokenizer: LEDTokenizer,
    dataset: Dataset,
    out: str | Path,
    run: RunArguments,
    *,
    held_out: Dataset | None = None,
    start: str | None = None,
    dtype: str | None = None,
    resume: bool = False,
    on_log: Callable[[Line], object] = lambda line: None,
    notice: Callable[[str], None] = lambda sentence: None,
) -> Trained:
    """Train a model on a dataset, and write it into a folder.

    Args:
        model: where it starts from; it stays as it is.
        tokenizer: the model's; it is written beside the trained model.
        dataset: the documents.
        out: the folder; its parent must exist.
        run: all settings.
        held_out: documents for validation.
        start: the name of the model that it starts from, for the adapter's file.
        dtype: "float16": compute in it; the model is in float32, and its weights are the master copy. None: as the model.
        resume: go on from the folder's checkpoint.
        on_log: called with each line of the log, and `total_steps`.
        notice: called with a sentence for the user.

    Raises:
        SettingsError: for settings that contradict each other, the model or the data.
        InputError: if the folder holds a training already; if too many steps in a row had no finite loss or gradient.
        CheckpointError: if a file cannot be written, or the checkpoint is damaged or of another run.
    """
    args = run.training
    _check(args, dataset, held_out)
    started = time.perf_counter()
    training = _Training(model, tokenizer, dataset, run, held_out, start, dtype or model.dtype)
    folder = RunFolder(out, resume=resume)
    progress = folder.begin(training.facts(), may_change=_SAME_BITS + (() if training.schedule.has_end else _LENGTH))
    if progress is None:
        progress = Progress(loss_scale=LossScale.first(training.model.dtype))
    else:
        progress = training.restore(folder)
        notice(f"going on after step {progress.step:,} of {training.total_steps:,}")
    log = TrainingLog(folder.log, after_step=progress.step)

    def report(line: Line) -> None:
        log.write(line)
        on_log({**line, "total_steps": training.total_steps})

    try:
        with device_errors(training.backend):
            progress = training.go_on(progress, folder, report)
    finally:
        training.processes.close()
    training.finish(folder, progress)
    best = progress.best
    return Trained(
        str(out),
        progress.step,
        progress.skipped,
        training.last_loss,
        None if held_out is None else args.metric_for_best_model,
        best.value,
        None if best.value is None else best.step,
        progress.stopped,
        round(time.perf_counter() - started, 3),
    )


def _check(args: TrainingArguments, dataset: Dataset, held_out: Dataset | None) -> None:
    """Refuse settings that do not fit each other or the data."""
    check_lora(args)
    if held_out is None and (args.early_stopping_patience or args.eval_steps or args.metric_for_best_model != "loss"):
        raise SettingsError(
            "early_stopping_patience, eval_steps and metric_for_best_model are for held-out documents. Name their files "
            "with validate (--validate)."
        )
    if held_out is not None:
        check_metric(args.metric_for_best_model, dataset.task)
    if args.early_stopping_threshold and args.early_stopping_patience is None:
        raise SettingsError("early_stopping_threshold has no effect without early_stopping_patience. Give both.")
    if args.global_attention == "question" and dataset.task != "question-answering":
        raise SettingsError(f"global_attention is 'question', but in {dataset.task} there is none. Give 'first'.")


class _Training:
    """A model that is being trained: its weights change in place."""

    def __init__(
        self,
        model: Trainable,
        tokenizer: LEDTokenizer,
        dataset: Dataset,
        run: RunArguments,
        held_out: Dataset | None,
        start: str | None,
        dtype: str,
    ) -> None:
        args = self.args = run.training
        self.run, self.tokenizer, self.start = run, tokenizer, start
        self.dataset, self.held_out = dataset, held_out
        self.plan = BatchPlan.of(dataset, args)
        self.total_steps = args.max_steps or self.plan.total_steps(args.num_train_epochs)
        if args.warmup_steps >= self.total_steps:
            raise SettingsError(
                f"warmup_steps is {args.warmup_steps:,}, but the training has {self.total_steps:,} steps: the learning rate "
                "would never be reached. Give fewer (--warmup), or train longer."
            )
        self.schedule = Schedule(args.lr_scheduler_type, args.warmup_steps, self.total_steps)
        model = as_trained(model, dataset.problem_type, run.generation)
        lora, config = args.lora_rank is not None, model.config
        trained = lora_weights(model, config, args) if lora else whole_weights(model, args.freeze)
        self.trained = in_float16(trained) if dtype == "float16" else trained
        self.model, self.parameters, self.backend = self.trained.model, self.trained.parameters, model.backend
        self.optimizer: Optimizer = (
            Adafactor(weight_decay=args.weight_decay)
            if args.optim == "adafactor"
            else AdamW(args.adam_beta1, args.adam_beta2, args.adam_epsilon, args.weight_decay)
        )
        self.accumulator = GradientAccumulator(self.parameters, self.backend)
        self.state = initial_state(self.optimizer, self.parameters, self.backend)
        rates = {"dropout": args.dropout, "attention_dropout": args.attention_dropout}
        self.rates = replace(DropoutRates.of(config), **{name: r for name, r in rates.items() if r is not None})
        default = "question" if dataset.task == "question-answering" else "first"
        self.mask_of: GlobalMask = global_mask(args.global_attention or default, tokenizer, args.separator)
        check_global_masks(self.mask_of, dataset, held_out)
        self.pad_token_id = 1 if config.pad_token_id is None else config.pad_token_id
        gradients = StepGradients(self.trained, dataset, args, self.rates, self.mask_of, self.pad_token_id)
        self.processes = Processes(gradients, args.processes)
        self.last_loss: float | None = None

    def facts(self) -> dict[str, Any]:
        """What decides how the training goes: a run that goes on must have the same."""
        return {
            "data": self.run.data.to_dict(),
            "training": self.run.training.to_dict(),
            "generation": dict(self.run.generation),
            "documents": len(self.dataset),
            "sha256 of the documents": self.dataset.fingerprint,
            "sha256 of the held-out documents": None if self.held_out is None else self.held_out.fingerprint,
            "class": self.model.architecture,
            "dtype": self.model.dtype,
            **self.trained.facts(),
        }

    def restore(self, folder: RunFolder) -> Progress:
        """Take weights, moments and progress from the folder's checkpoint."""
        kept, moments, progress = folder.load(self.trained.kept)
        for name, array in self.trained.kept.items():
            array[...] = self.backend.to_device(kept[name])
        self.trained.renew()
        self.state = restored_state(self.optimizer, moments, self.parameters, self.backend)
        return progress

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def go_on(self, progress: Progress, folder: RunFolder, report: Callable[[Line], None]) -> Progress:
        """Train from a progress to the end."""
        while progress.step < self.total_steps and not progress.stopped:
            steps = self.plan.steps(progress.epoch)
            for position in range(progress.position, len(steps)):
                line = self._take_step(steps[position], progress)
                epoch = progress.epoch + (position + 1) / len(steps)
                progress = self._counted(progress, line, is_last=position + 1 == len(steps))
                report({"step": progress.step, "epoch": round(epoch, 4), **line})
                self._check_skipped(progress, line)
                progress = self._validate_and_save(progress, epoch, folder, report)
                if progress.step == self.total_steps or progress.stopped:
                    break
        return progress

    def _take_step(self, step: Step, progress: Progress) -> dict[str, Any]:
        """One step: gradients of all its batches, then the change of the weights. Returns what the log says of it."""
        started = time.perf_counter()
        scale = progress.loss_scale.value
        losses, norm = self._gradients(step, progress.step, scale)
        loss = self._mean(losses)
        while math.isfinite(loss) and not math.isfinite(norm) and scale > LOWEST:  # in float16 (loss_scale.py)
            scale /= 2
            losses, norm = self._gradients(step, progress.step, scale)
        documents = [i for batch in step for i in batch]
        tokens = sum(len(self.dataset.examples[i].ids_T) + self._target_tokens(i) for i in documents)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            bad = [i for batch, one in zip(step, losses, strict=True) if not math.isfinite(one.mean) for i in batch]
            places = [self.dataset.examples[i].place for i in (bad or documents)]
            what = f"the loss is {loss}" if not math.isfinite(loss) else f"the norm of the gradients is {norm}"
            return {"skipped": what, "documents": places[:_DOCUMENTS_NAMED]}
        rate = self.schedule.rate(progress.step, self.args.learning_rate)
        clip = clip_factor(norm, self.args.max_grad_norm) if self.args.max_grad_norm else 1.0
        gradients = self.accumulator.gradients
        self.state = self.optimizer.update(
            self.parameters, gradients, self.state, rate, self.backend, scale=clip / scale
        )
        self.trained.renew()
        self.last_loss = loss
        seconds = time.perf_counter() - started
        return {
            "loss": loss,
            "grad_norm": norm,
            "learning_rate": rate,
            **({"loss_scale": scale} if self.model.dtype == "float16" else {}),
            "tokens": tokens,
            "tokens_per_second": round(tokens / seconds, 1),
            "seconds": round(seconds, 3),
        }

    def _gradients(self, step: Step, number: int, loss_scale: float) -> tuple[list[LossSum], float]:
        """Let the accumulator have the gradients of a step, times the scale. The loss of each batch; the gradients' norm."""
        self.accumulator.clear()
        on_device = self.processes.add_step(step, number, loss_scale, self.accumulator.add)
        squared_on_device = squared_norm(self.accumulator.gradients, self.backend)
        losses, squared = fetched(on_device, squared_on_device, self.backend)  # waits for the device
        return losses, math.sqrt(squared) / loss_scale

    def _mean(self, losses: list[LossSum]) -> float:
        """The loss of a step: over all its labels, or the mean of its batches' losses."""
        if self.args.accumulate_as == "transformers":
            return sum(loss.mean for loss in losses) / len(losses)
        whole = losses[0]
        for loss in losses[1:]:
            whole += loss
        return whole.mean

    def _target_tokens(self, i: int) -> int:
        return len(self.dataset.examples[i].target) if self.dataset.task == "summarization" else 0

    def _counted(self, progress: Progress, line: Line, *, is_last: bool) -> Progress:
        skipped = "skipped" in line
        return replace(
            progress,
            step=progress.step + 1,
            epoch=progress.epoch + is_last,
            position=0 if is_last else progress.position + 1,
            skipped=progress.skipped + skipped,
            skipped_in_a_row=progress.skipped_in_a_row + 1 if skipped else 0,
            loss_scale=progress.loss_scale.after(line["loss_scale"]) if "loss_scale" in line else progress.loss_scale,
        )

    def _check_skipped(self, progress: Progress, line: Line) -> None:
        if progress.skipped_in_a_row >= self.args.max_skipped_steps:
            raise InputError(
                f"{progress.skipped_in_a_row} steps in a row were not taken; of step {progress.step:,}, {line['skipped']} "
                f"(documents: {', '.join(line['documents'])}). Lower the learning rate, or look at these documents; the log "
                "has all steps."
            )

    # ---- validation, the best model, the checkpoint --------------------------------------------------------------------

    def _validate_and_save(
        self, progress: Progress, epoch: float, folder: RunFolder, report: Callable[[Line], None]
    ) -> Progress:
        """What is due after a step."""
        is_end = progress.step == self.total_steps
        if self.held_out is not None and (is_end or _is_due(progress, self.args.eval_steps)):
            progress = self._validate(progress, epoch, folder, report)
        if is_end or progress.stopped or _is_due(progress, self.args.save_steps):
            kept = {name: self.backend.to_host(array) for name, array in self.trained.kept.items()}
            folder.save(kept, self.state.to_host(self.backend), progress)
        return progress

    def _validate(
        self, progress: Progress, epoch: float, folder: RunFolder, report: Callable[[Line], None]
    ) -> Progress:
        assert self.held_out is not None
        started, metric = time.perf_counter(), self.args.metric_for_best_model
        measures = validate(
            self.model, self.held_out, self.tokenizer, self.mask_of, metric, pad_token_id=self.pad_token_id
        )
        best = progress.best.after(
            measures[f"eval_{metric}"],
            progress.step,
            higher_is_better=metric != "loss",
            threshold=self.args.early_stopping_threshold,
        )
        line = {"step": progress.step, "epoch": round(epoch, 4), **measures, "is_best": best.since == 0}
        report({**line, "seconds": round(time.perf_counter() - started, 3)})
        if best.since == 0:
            self._save_model(folder.path)
        patience = self.args.early_stopping_patience
        return replace(progress, best=best, stopped=patience is not None and best.since >= patience)

    def finish(self, folder: RunFolder, progress: Progress) -> None:
        """Write the last model: as the model, or beside the best one."""
        if progress.best.value is None:
            self._save_model(folder.path)
        elif progress.best.step != progress.step:
            self._save_model(folder.last)

    def _save_model(self, path: Path) -> None:
        def write_others(new: Path) -> None:
            self.tokenizer.save_pretrained(new)
            self.trained.save_beside(new, self.start)

        self.trained.saved_model.save_pretrained(path, overwrite=True, others=write_others)


def _is_due(progress: Progress, every: int | None) -> bool:
    """After every so many steps; None: at the end of an epoch."""
    return progress.position == 0 if every is None else progress.step % every == 0
