"""Fine-tune a flow policy of your own."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from numpy.typing import ArrayLike
from torch import nn

from bench.agents import AGENTS
from bench.agents.module_policy import Convention
from bench.api.evaluating import EvaluateFunction, UserEvaluation, play_in
from bench.api.live import LiveTuner, live_plan
from bench.api.progress import Progress, progress_console
from bench.api.results import RunResult
from bench.api.runs import trained
from bench.api.state import process_state_kept
from bench.data import DataSource, TaskData, load_data, npz_keys
from bench.errors import BenchError
from bench.experiment import OfflineRequest
from bench.machine import with_home
from bench.policies import LoadedPolicy, find_policy
from bench.storage import write_tensors
from bench.suites import OnlineProtocol, unknown
from bench.training.job import Job
from bench.training.options import plan_offline
from bench.training.own_policy import OwnModule, networks_of
from bench.training.run_plan import Plan

__all__ = ["FineTuner"]

Reference = Literal["frozen", "ema", "adapters_off"]

_RELATIVE_DUAL: Mapping[str, Any] = {
    "dual": "relative",
    "dual_rate": 0.02,
    "dual_clip": 10.0,
    "lambda_min": 1e-4,
    "lambda_max": 1e4,
    "lambda_scale": 1.0,
}
"""Lambda within 300 updates for budgets from 0.01 to 10; see `trustregion.RelativeDualDescent`."""


class FineTuner:
    """Fine-tunes a flow policy with off-policy reinforcement learning on recorded data.

    The policy is an ``nn.Module`` with ``velocity(context, x, t)``, and ``encode(observations)``
    if it has a context of its own; or with ``forward(observations, x, t)``. It is given
    observations as the data hold them, and noisy chunks ``x (batch, chunk_length, action)``. It is
    copied, and never changed; :attr:`policy` is the improved one. Training goes through the same
    code as :func:`bench.offline`: the same call continues a run, and with the project's own
    perceptron the numbers are the same.

    Args:
        policy: the policy to improve: a module, a function that makes one, or `module:function`.
        data: anything that :func:`bench.load_data` reads, or what it returned.
        method: an agent that starts from a flow: `trqam`, `qam`, `sqam`, ... (`bench agents`).
        kl_budget: KL in nats per action that the policy may move away from its reference; the
            method's own by default. Methods without a trust region have none.
        chunk_length: actions per decision, played open loop.
        critic: `auto`: an ensemble of perceptrons over normalised observations, images through a
            small residual network. `context`: likewise, over the policy's own context, `encode`
            frozen as given. Or a module of your own, ``forward(observations, actions)`` to
            values ``(batch,)`` or ``(critics, batch)``, or a function that makes one.
        reference: what the policy is held to. `frozen`: itself as it was. `ema`: the moving average
            of a clone that goes on being trained on the data, as published. `adapters_off`: itself
            with its adapters (peft) switched off, without a second copy. By default `frozen`, where
            the method has the choice.
        convention: of the policy's times. `data_at_one`: noise at t=0, v = data - noise.
            `noise_at_one`: the other way round, as in openpi and LeRobot.
        action_mask: entries of an action that count, ``(A,)``, or of a chunk, ``(H, A)``; others
            are padding, or steps that are never played: left out of losses and KL, and played as 0.
        learning_rates: for parts of the networks, such as ``{"encoder": 1e-5}``.
        settings: of the method, by name (`bench agents trqam` lists them).
        clone_steps: updates of behaviour cloning on the data before the fine-tuning.
        batch_size: chunks per update.
        micro_batches: parts that a batch is evaluated and differentiated in, one after the other;
            for policies whose activations on a whole batch do not fit (trqam, sqam, qam, qam-e,
            qam-f).
        random_shift: pixels by which images of a batch are moved at most before policy and critic
            read them, as DrQ does; 0 for none.
        seed: of everything random.
        device: cpu, cuda, ...; auto takes a GPU if there is one.
        precision: of the matrix products; auto is tf32 on a GPU and float32 elsewhere.
        data_dir: where data sets are looked for by name.

    Raises:
        ValueError: the policy is none, nothing in it is trained, or a method or option that there
            is not.
    """

    def __init__(
        self,
        policy: OwnModule,
        data: DataSource,
        *,
        method: str = "trqam",
        kl_budget: float | None = None,
        chunk_length: int = 1,
        critic: OwnModule | Literal["auto", "context"] = "auto",
        reference: Reference | None = None,
        convention: Convention = "data_at_one",
        action_mask: ArrayLike | None = None,
        learning_rates: Mapping[str, float] | None = None,
        settings: Mapping[str, Any] | None = None,
        clone_steps: int = 0,
        batch_size: int = 256,
        micro_batches: int = 1,
        random_shift: int = 0,
        seed: int = 0,
        device: str = "auto",
        precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto",
        data_dir: str | Path | None = None,
    ) -> None:
        _check_method(method, action_mask)
        if micro_batches < 1 or batch_size % micro_batches:
            raise ValueError(
                f"micro_batches={micro_batches} must be at least 1 and divide the batch of "
                f"{batch_size} chunks"
            )
        self.method, self.seed = method, seed
        self._start, self._data = policy, data
        self._critic = None if critic == "auto" else critic
        self._networks = networks_of(
            policy,
            convention=convention,
            learning_rates=learning_rates,
            critic=self._critic,
            action_mask=action_mask,
            micro_batches=micro_batches,
        )
        self._request = OfflineRequest(
            dataset=str(data) if isinstance(data, str | Path) else None,
            chunk_length=chunk_length,
            agent=(method,),
            kl_budget=kl_budget,
            set=_settings(method, reference, settings or {}),
            pretrain_steps=clone_steps,
            batch_size=batch_size,
            random_shift=random_shift or None,
            data_dir=None if data_dir is None else Path(data_dir),
            device=device,
            precision=precision,
            processes=1,
            first_seed=seed,
        )
        self._trained: LoadedPolicy | None = None
        self._plan: Plan | None = None

    def fit(
        self,
        steps: int,
        *,
        out: str | Path | None = None,
        evaluate: str | EvaluateFunction | Any | None = None,
        evaluate_every: int | None = None,
        episodes: int | None = None,
        solved_at: float | None = None,
        log_every: int | None = None,
        checkpoint_every: int | None = None,
        progress: Progress = "auto",
    ) -> RunResult:
        """Fine-tune, or continue where the run in ``out`` stopped.

        Args:
            steps: updates until the end; a finished run is made longer by a larger number.
            out: run directory; `runs/own-...` by default.
            evaluate: how the policy is judged: a Gymnasium id (or `module:id`), played by the
                simulators of `bench.offline`; an environment at hand; or a function of a
                :class:`bench.LoadedPolicy` that returns the returns of its episodes, see
                :class:`bench.api.evaluating.UserEvaluation`. None only trains.
            evaluate_every: updates between evaluations.
            episodes: of an evaluation.
            solved_at: return from which an episode counts as a success.
            log_every: updates between two rows of training metrics.
            checkpoint_every: updates between checkpoints.
            progress: as of :func:`bench.offline`.

        Returns:
            The result tables; :attr:`RunResult.metrics` has the training curves.

        Raises:
            ValueError: a value that makes no sense, data that do not fit, or a policy that is no
                velocity model of them; nothing has been trained then.
            BenchError: the data are missing, the directory is in use, or training stopped.
        """
        request = replace(
            self._request,
            env=evaluate if isinstance(evaluate, str) else None,
            solved_at=solved_at,
            steps=steps,
            evaluate_every=evaluate_every,
            episodes=episodes,
            log_every=log_every,
            checkpoint_every=checkpoint_every,
            out=None if out is None else Path(out),
        )
        with process_state_kept():
            plan = plan_offline(request, networks=self._networks, given=self._given(request))
            evaluation = None
            if not isinstance(evaluate, str):
                function = _function(evaluate, plan.suite.protocol.episodes)
                evaluation = UserEvaluation(plan.directory, function, solved_at)
            job = Job(plan, ["bench.FineTuner"], progress_console(progress), evaluation)
            job.run()
        self._trained, self._plan = None, plan
        if not job.problems:
            self._trained = self._load(plan)
        result = trained(job)
        if job.problems:
            raise BenchError("; ".join(job.problems))
        return result

    def online(
        self,
        steps: int = 50_000,
        *,
        warm_up: int = 0,
        updates_per_step: int = 1,
        replay: Literal["union", "balanced"] = "union",
        offline_share: float = 0.5,
        log_every: int = 500,
        checkpoint_every: int = 1_000,
    ) -> LiveTuner:
        """Go on learning in a loop of your own, where :meth:`fit` ended; a `with` statement.

        Args:
            steps: of the loop, at most; that many transitions are kept.
            warm_up: first steps without an update.
            updates_per_step: after every later step.
            replay: what batches are drawn from: data and experience as one (`union`), or a fixed
                share of each (`balanced`).
            offline_share: part of a balanced batch that comes from the data.
            log_every: steps between two rows of training metrics.
            checkpoint_every: steps after which the next end of an episode is saved.

        Raises:
            ValueError: :meth:`fit` has not been called, or a value that makes no sense.
            BenchError: the directory is in use.
        """
        if self._plan is None:
            raise ValueError("call fit() before online(), which goes on where it ended")
        for name, value in (("steps", steps), ("updates_per_step", updates_per_step)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= warm_up < steps or not 0.0 <= offline_share <= 1.0:
            raise ValueError(
                f"warm_up must lie between 0 and steps={steps}, and offline_share in [0, 1], got "
                f"{warm_up} and {offline_share}"
            )
        protocol = OnlineProtocol(
            steps=steps,
            # A balanced batch draws a whole chunk of experience.
            warm_up=max(warm_up, self._request.chunk_length or 1),
            updates_per_step=updates_per_step,
            replay=replay,
            offline_share=offline_share,
        )
        plan, pack = live_plan(
            self._plan, protocol, log_every=log_every, checkpoint_every=checkpoint_every
        )

        def closed() -> None:
            self._trained = self._load(plan)

        return LiveTuner(plan, pack, closed)

    @property
    def policy(self) -> nn.Module:
        """The policy as :meth:`fit` left it: a module like the one given, with better parameters.

        Before that the one that was given, or that the function makes.

        Raises:
            ValueError: the method acts by more than the flow: `bench.load_policy` has all of it.
        """
        if self._trained is None:
            return self._networks.policy.module(self.seed)
        return self._trained.module

    def save(self, path: str | Path | None = None) -> Path:
        """Write the improved policy's parameters, for ``module.load_state_dict``.

        A module with `save_pretrained` (Hugging Face's) writes itself into a folder; of others it
        is one safetensors file, read by `safetensors.torch.load_file`.

        Args:
            path: folder or file; in the run directory by default.

        Returns:
            What was written.

        Raises:
            ValueError: nothing has been trained yet.
        """
        if self._trained is None or self._plan is None:
            raise ValueError("there is nothing to save before fit(); the run saves itself as well")
        module, directory = self.policy, self._plan.directory
        if callable(save := getattr(module, "save_pretrained", None)):
            folder = directory / "policy" if path is None else Path(path)
            save(folder)
            return folder
        file = directory / "policy.safetensors" if path is None else Path(path)
        write_tensors(file, module.state_dict())
        return file

    def _given(self, request: OfflineRequest) -> TaskData | None:
        """Data in memory, unless they are vectors that `bench.offline` reads by their name."""
        if request.env is not None and _is_read_by_name(self._data):
            return None
        data = load_data(self._data, data_dir=request.data_dir)
        low, high = float(data.actions.min()), float(data.actions.max())
        if low < -1.001 or high > 1.001:  # `as_stored`
            raise ValueError(
                f"{data.dataset} has actions from {low:g} to {high:g}, but policies act in [-1, 1] "
                "and would play what is clipped; read the data with "
                "bench.load_data(..., action_range=(low, high))"
            )
        return data

    def _load(self, plan: Plan) -> LoadedPolicy:
        found = find_policy(
            plan.directory,
            agent=self.method,
            seed=self.seed,
            networks=self._start,
            critic=self._critic,
        )
        return LoadedPolicy(found, noise_seed=self.seed, device=plan.device)


def _is_read_by_name(data: DataSource) -> bool:
    """Whether `bench.offline` reads data itself: of a name, or a file with a vector a row."""
    if not isinstance(data, str | Path) or str(data).startswith("minari:"):
        return False
    place = with_home(str(data))
    if not place.exists():
        return True
    return place.suffix == ".npz" and {"observations", "terminals"} <= {*npz_keys(place)}


def _check_method(method: str, action_mask: ArrayLike | None) -> None:
    """Refuse an agent that does not fine-tune a flow policy, or takes no mask of actions."""
    if method not in AGENTS:
        raise ValueError(unknown("method", method, AGENTS))
    if not AGENTS[method].pretrained:
        flows = [name for name, entry in AGENTS.items() if entry.pretrained]
        raise ValueError(
            f"method {method!r} does not start from a flow policy; {', '.join(flows)} do"
        )
    if action_mask is not None and not AGENTS[method].reads_leaves:
        able = [name for name, entry in AGENTS.items() if entry.reads_leaves]
        raise ValueError(f"method {method!r} takes no action_mask; {', '.join(able)} do")


def _settings(
    method: str, reference: Reference | None, given: Mapping[str, Any]
) -> tuple[str, ...]:
    """A method's settings as `--set` takes them, with the defaults of a fine-tuning."""
    known = AGENTS[method].settings
    chosen = dict(given)
    if "dual" in known and "dual" not in chosen:
        chosen = {**_RELATIVE_DUAL, **chosen}
    if "reference" in chosen:
        raise ValueError("reference is an argument of its own; leave it out of settings")
    if "reference" in known:
        chosen["reference"] = reference or "frozen"
    elif reference is not None:
        raise ValueError(f"method {method!r} has no choice of reference; leave it out")
    return tuple(f"{name}={_text(value)}" for name, value in chosen.items())


def _function(evaluate: Any, episodes: int) -> EvaluateFunction | None:
    """What plays an evaluation: the user's function, or one that plays an environment."""
    if evaluate is None:
        return None
    if callable(getattr(evaluate, "reset", None)) and callable(getattr(evaluate, "step", None)):
        return play_in(evaluate, episodes)
    if not callable(evaluate):
        raise ValueError(
            f"evaluate is {type(evaluate).__name__}; expected a Gymnasium id, an environment, a "
            "function of a policy that returns its episodes' returns, or None"
        )
    function: EvaluateFunction = evaluate
    return function


def _text(value: Any) -> str:
    """A setting as it is typed."""
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
