"""A training set up from a recipe: data, model, batches, what trains, and the trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from melcli import console
from melcli.data import written
from melcli.data.batches import TrainingBatches, only
from melcli.data.packing import BatchPlan
from melcli.data.utterance import Utterance
from melcli.data.voice_prompts import VoicePrompts
from melcli.errors import ConfigError
from melcli.models.hardware import keep_freed_memory, pick_device, pick_dtype
from melcli.recipe import Recipe
from melcli.training import parallel, setup, tune, voices
from melcli.training.evaluation import Evaluation, hearing_trains
from melcli.training.progress import ProgressLines, Stopwatch
from melcli.training.trainer import SpeechTrainer, StopAfter, StopOnSignal

SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup", "wsd": "warmup_stable_decay"}

UNREAD = "nothing that trains is read by default: the words of the dictionary come from speech input and CTC head; `transcribe --beam` reads the rest"
EAGER_ROW = 512  # positions a row up to which a processor trains with plain matrix products instead of fused attention; measured faster at 300


class Run:
    """A training that is set up and not yet started."""

    def __init__(self, recipe: Recipe, out: Path, *, resuming: bool = False, offline: bool = False) -> None:
        self.recipe = recipe
        self.out = out
        self.offline = offline
        t = recipe.train
        self.front = setup.front_of(recipe.model, recipe.data.mel, offline)
        self.data = setup.training_data(recipe.data, self.front, offline, speaks=recipe.model.speech_output is not None)
        self.started, self.processor = setup.build_model(recipe, self.data, self._tokenizer(resuming), offline)
        self.model, self.tokenizer = self.started.model, self.started.tokenizer
        if self.model.hears_by_itself and set(self.data.tasks) != {"asr"}:
            raise ConfigError("model.ce_weight 0 with ctc_from speech-input learns from speech with its text alone: every source must be of task asr")
        self.groups = tune.choose(self.model, recipe.tune)
        by_task = {task: self.processor.encoder(task) for task in set(self.data.tasks)}
        if recipe.model.lexicon is not None and "tts" in by_task:
            by_task["tts"].spelled = recipe.model.lexicon.spelled
        self.encoders = [by_task[task] for task in self.data.tasks]
        utterances = self.data.features.utterances
        self.text_ids = self._text_ids(utterances)
        lengths = self._lengths(utterances)
        self.voices = self._voices()
        world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        self.parallel, self.parallel_reason = parallel.choose(t.parallel, world, pick_device()[0])
        self.plan = BatchPlan(
            lengths,
            fingerprint=self.data.fingerprint,
            seed=recipe.seed,
            world_size=world * t.accumulate,  # batches of one optimiser step, however many processes share them
            tokens_per_batch=t.tokens_per_batch,
            row_tokens=t.row_tokens,
            repeats=self.data.repeats,
            shards=self.data.features.blocks() if recipe.data.shuffle == "shards" else None,
            added=None if self.voices is None else self.voices.positions,
            **self._curriculum(),
        )
        self.world = world
        self.steps = t.steps or max(1, self.plan.steps(t.epochs or 1) // (world * t.accumulate))
        self.device, self.device_reason = pick_device()
        self.dtype, self.dtype_reason = pick_dtype(t.dtype, self.device)
        fused = self.model.llm.config._attn_implementation != "eager"
        self.attention_reason = (
            "fused, with a mask that keeps the documents of a row apart" if fused else "this family has no fused attention that fits"
        )
        if self.device == "cpu":
            keep_freed_memory()
            if t.row_tokens <= EAGER_ROW:
                self.model.llm.set_attn_implementation("eager")
                self.attention_reason = f"plain products are faster on a processor in rows of up to {EAGER_ROW} positions"
        if t.compile:
            parallel.compile_layers(self.model.llm)

    def _text_ids(self, utterances: Sequence[Utterance]) -> list[list[int]]:
        """What is written of each utterance, tokenized with those that are written the same way."""
        found: list[list[int]] = [[]] * len(utterances)
        for encoder in dict.fromkeys(self.encoders):
            own = [i for i, each in enumerate(self.encoders) if each is encoder]
            for i, ids in zip(own, encoder.texts([utterances[i] for i in own]), strict=True):
                found[i] = ids
        return found

    def _voices(self) -> VoicePrompts | None:
        stride = self.model.speech_output.stride if self.model.speech_output is not None else 1
        return voices.voice_prompts(self.recipe.data, self.data, self.text_ids, self.processor.spec, stride, self.recipe.seed)

    def _tokenizer(self, resuming: bool) -> Any:
        """The run's own tokenizer where it was trained for it and the run is resumed, so that it cannot get another."""
        folder, model = self.out / "tokenizer", self.recipe.model
        if (model.init and not model.tokenizer.renew) or not resuming or not (folder / "tokenizer.json").exists():
            return None
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        for how in ("is_local", "local_files_only"):  # it was read; the model's tokenizer is to be that of a run that was not interrupted
            tokenizer.init_kwargs.pop(how, None)
        return tokenizer

    def _curriculum(self) -> dict[str, Any]:
        curriculum = self.recipe.train.curriculum
        if curriculum is None:
            return {}
        if read := next((task for task in self.data.tasks if task in written.TASKS), None):
            raise ConfigError(f"train.curriculum: task {read} reads texts, which have no seconds; leave it out")
        spec = self.processor.spec
        second = spec.rate if self.processor.reads == "wave" else spec.frame_rate
        lengths = zip(self.data.features.frames, self.data.features.said, strict=True)
        early = [frames / second + said / spec.frame_rate <= curriculum.max_seconds for frames, said in lengths]
        if not any(early):
            raise ConfigError(f"train.curriculum: no utterance is as short as max_seconds {curriculum.max_seconds:g}")
        return {"early": early, "early_epochs": curriculum.epochs}

    def _lengths(self, utterances: Sequence[Utterance]) -> list[int]:
        features, found = self.data.features, []
        for encoder, u, n, said, ids in zip(self.encoders, utterances, features.frames, features.said, self.text_ids, strict=True):
            places = self.processor.patches(n) if encoder.reads_speech else self.processor.steps(n) if encoder.speaks else 0
            found.append(encoder.length(u, places, ids, self.processor.steps(said)))
        return found

    def _ends(self) -> list[tuple[dict[str, Any], Any]]:
        """Options and module of the speech input and, where there is one, of the speech output."""
        section, model = self.recipe.model, self.model
        said = [] if section.speech_output is None else [(section.speech_output, model.speech_output)]
        return [(section.speech_input, model.speech_input), *said]

    def decisions(self) -> dict[str, str]:
        """What was decided, and why."""
        count = sum(p.numel() for p in self.model.parameters())
        ends = {end.get("kind"): module for end, module in self._ends()}
        sizes = "".join(f", {sum(p.numel() for p in module.parameters()):,} of them in {kind}" for kind, module in ends.items())
        t = self.recipe.train
        left_out = "; ".join(f"{n} {why}" for why, n in self.data.left_out.items())
        epoch = len(self.plan.batches(0))
        begun = self.started.coverage.said(self.recipe.model.init)
        return {
            "device": f"{self.device}: {self.device_reason}",
            "dtype": f"{str(self.dtype).removeprefix('torch.')}: {self.dtype_reason}; weights stay float32",
            "data": f"{len(self.data.features.utterances)} utterances, {self.data.hours:.2f} h an epoch"
            + (f", {said} of them to be said" if (said := self.data.said) else "")
            + (f", {texts} of them text alone" if (texts := self.data.tasks.count("text")) else "")
            + (f", {unheard} of them read and not heard" if (unheard := sum(map(self.data.tasks.count, written.TASKS))) else "")
            + (f"; left out: {left_out}" if left_out else ""),
            **({} if self.voices is None else {"voice prompts": voices.decided(self.recipe.data, self.data, self.voices)}),
            "mel": f"{self.recipe.data.mel}: {self.processor.spec.frame_rate:g} frames/s, {self.processor.spec.n_mels} bins",
            "model": f"{count:,} parameters{sizes}; vocabulary {len(self.tokenizer)}",
            **begun,
            **self.started.decided,
            "trains": "; ".join(map(str, self.groups)),
            **({"decoding": UNREAD} if self._unread() else {}),
            "memory": tune.memory(
                self.model, t.tokens_per_batch, t.row_tokens, self.dtype.itemsize, t.gradient_checkpointing, self.parallel, self.world
            ),
            "attention": f"{self.model.llm.config._attn_implementation}: {self.attention_reason}; speech {self.model.config.speech_attention}",
            "batches": f"{t.tokens_per_batch} positions in rows of {t.row_tokens}; {100 * self.plan.padding():.1f} % padding; {epoch} an epoch",
            **({"compiled": "the language model's layers, with their first batch; decoding runs uncompiled"} if t.compile else {}),
            **({"processes": f"{self.parallel}: {self.parallel_reason}"} if self.world > 1 or t.parallel != "ddp" else {}),
            **({"optimizer": "Muon for the matrices of hidden layers, AdamW for the rest"} if t.optimizer == "muon" else {}),
            "length": f"{self.steps} steps = {self.steps * t.accumulate * self.world / max(epoch, 1):.1f} epochs",
        }

    def _unread(self) -> bool:
        """Whether the words that the model writes by itself come from parts that do not train."""
        return self.model.config.ctc_sounds and "asr" in self.data.tasks and not hearing_trains(self.model)

    def dataset(self) -> TrainingBatches:
        return TrainingBatches(
            self.data.features,
            self.text_ids,
            self.encoders,
            self.plan,
            steps=self.steps * self.recipe.train.accumulate * self.world,
            patches=self.processor.patches,
            steps_of=self.processor.steps,
            pad_id=self.tokenizer.pad_token_id,
            seed=self.recipe.seed,
            on_failure=_left_out,
            text_noise=self.recipe.data.text_noise,
            voices=self.voices,
        )

    def trainer(self, smoke: int | None = None) -> SpeechTrainer:
        """The trainer, with all callbacks."""
        recipe, t = self.recipe, self.recipe.train
        warmup = round(t.warmup * self.steps) if t.warmup < 1 else round(t.warmup)
        scheduler_kwargs = {"num_decay_steps": max(1, self.steps // 5)} if t.schedule == "wsd" else {}
        args = TrainingArguments(
            output_dir=str(self.out / "checkpoints"),
            max_steps=self.steps,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=t.accumulate,
            learning_rate=t.lr,
            weight_decay=t.weight_decay,
            adam_beta1=t.betas[0],
            adam_beta2=t.betas[1],
            max_grad_norm=t.clip,
            optim="adamw_torch_fused",
            lr_scheduler_type=SCHEDULES[t.schedule],
            lr_scheduler_kwargs=scheduler_kwargs,
            warmup_steps=warmup,
            logging_steps=t.log_every,
            logging_nan_inf_filter=False,
            eval_strategy="steps" if recipe.data.eval else "no",
            eval_steps=t.eval_every,
            save_steps=t.save_every,
            use_cpu=self.device == "cpu",
            **parallel.arguments(self.parallel, t, self.model, self.dtype),
            dataloader_num_workers=recipe.data.workers,
            dataloader_persistent_workers=recipe.data.workers > 0,
            dataloader_prefetch_factor=4 if recipe.data.workers else None,
            dataloader_pin_memory=self.device == "cuda",
            remove_unused_columns=False,
            report_to=list(t.log_to) or "none",
            seed=recipe.seed,
            disable_tqdm=True,
            save_strategy="steps",
        )
        sets = setup.evaluation_sets(recipe.data, t.eval_limit, self.offline, speaks=self.model.speech_output is not None, front=self.front)
        trainer = SpeechTrainer(
            model=self.model,
            args=args,
            train_dataset=self.dataset(),
            eval_dataset=[] if sets else None,
            data_collator=only,
            processing_class=self.processor,
            evaluate_by_decoding=Evaluation(sets, self.processor, recipe.data),
            snapshots=self.out / "snapshots",
            keep=t.average,
            speech_lr=recipe.tune.speech_lr,
            muon=t.optimizer == "muon",
            layout=self.parallel,
            checkpoints=t.keep,
            callbacks=[ProgressLines(self.model.part_names), Stopwatch(), StopOnSignal(), *([StopAfter(smoke)] if smoke else [])],
        )
        return trainer


def _left_out(message: str) -> None:
    console.warn(f"left out of training: {message}")
