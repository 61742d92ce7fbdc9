"""Starts the engine, cluster or replicas that options and machines call for, watched."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bandweave.checkpoints.folder import Folder
from bandweave.cluster.cluster import Cluster
from bandweave.cluster.replicas import Replicas
from bandweave.cluster.takeover import Choose
from bandweave.engine.engine import Engine
from bandweave.engine.options import DEFAULT_CONTEXT, EngineOptions
from bandweave.engine.placement import make_launcher
from bandweave.executors.executor import StepError
from bandweave.formats.names import STORED
from bandweave.models.registry import build_graph
from bandweave.nodes.launcher import Launcher
from bandweave.serving.gathering import Gathering
from bandweave.serving.prediction import choose_split
from bandweave.serving.replica_count import settle_replicas
from bandweave.serving.texts import OpeningTexts
from bandweave.serving.watcher import Watch, Watcher, unwatched
from bandweave.weights.stored_formats import told

AnyEngine = Engine | Cluster | Replicas
Tell = Callable[[str], None]  # a sentence without its full stop


def start_engine(
    name: str,
    folder: Folder,
    options: EngineOptions,
    watch: Watch = unwatched,
    remarks: Sequence[str] = (),
    tell: Tell | None = None,
    gathering: Gathering | None = None,
    texts: OpeningTexts | None = None,
) -> AnyEngine:
    """``Cluster.start``, or that of ``Replicas`` where there are to be several groups, watched, or
    ``Engine.start`` where nobody wants to be told; shares and groups that are left to us are chosen
    by the stored profile. The watcher hears the ``remarks``, those on the model's files, and those
    on its ``texts``, whose errors end the start."""
    with watch(name, len(options.shares) if gathering is None else 0) as watcher:
        for remark in (*remarks, *folder.remarks):
            watcher.remark(remark)
        engine = _start(folder, options, watcher, tell, gathering, texts)
        try:
            if texts is not None:
                tokenizer, _ = texts.wait()
                for remark in tokenizer.remarks:
                    watcher.remark(remark)
        except BaseException:
            engine.close()
            raise
        return engine


def _start(
    folder: Folder,
    options: EngineOptions,
    watcher: Watcher,
    tell: Tell | None,
    gathering: Gathering | None,
    texts: OpeningTexts | None,
) -> AnyEngine:
    if gathering is None:
        options = settle_replicas(folder, options, watcher.remark)
    if gathering is None and options.replicas == 1:
        options = choose_split(folder, options, watcher.remark)
    spec = folder.spec
    if options.run.context is None and spec.run_length < min(spec.context_length, DEFAULT_CONTEXT):
        watcher.remark(
            f"context {spec.run_length}: beyond that {spec.beyond_run_length}, which cannot be "
            "run yet"
        )
    if options.run.weight_format == STORED:
        watcher.remark(told(folder, build_graph(folder.spec)))
    if options.replicas > 1:
        if texts is not None:
            texts.wait()  # groups load in threads of their own
        return Replicas.start(
            folder,
            options,
            watcher.loading,
            on_waiting=watcher.waiting,
            choose=lambda left: choose_split(folder, left),
            tell=tell or (lambda sentence: None),
        )

    def loading(progress: Sequence[tuple[int, int]]) -> None:
        if texts is not None:
            texts.check()
        watcher.loading(progress)

    def begin(options: EngineOptions, launcher: Launcher, choose: Choose) -> Engine | Cluster:
        if tell is None:
            return Engine.start(folder, options, launcher, loading)
        return Cluster.start(folder, options, launcher, loading, choose=choose, tell=tell)

    if gathering is None:
        launcher = make_launcher(options, watcher.waiting)
        return begin(options, launcher, lambda left: choose_split(folder, left))
    if texts is not None:
        texts.wait()  # before machines are waited for
    while True:
        gathered = gathering.gather(folder, options, watcher)
        choose, groups = gathered.replanner.choose, gathered.groups
        try:
            if len(groups) == 1:
                return begin(groups[0].options, groups[0].launcher, choose)
            return Replicas.start_each(
                folder,
                [group.options for group in groups],
                [group.launcher for group in groups],
                watcher.loading,
                choose=choose,
                tell=tell or (lambda sentence: None),
            )
        except (ConnectionError, StepError) as error:
            if not gathering.has_changed(gathered):
                raise
            watcher.remark(f"{error}; gathering the machines anew")
