"""What all tests share: nothing of theirs is kept in the user's folders, Ctrl-C works, and builds
are under way while other tests wait."""

from __future__ import annotations

import os
import signal
from functools import partial

import hypothesis
import pytest

from tests.fuzz.fuzzer import build_fuzzer
from tests.helpers.runner_builds import (
    RUNNERS,
    build_macos_runner,
    build_runner,
    start_builds,
)

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("machine", deadline=None)
hypothesis.settings.load_profile("machine")

# Modules that only compute, or start commands whatever the clock says: `make test` runs several of
# their tests at a time. Others open ports, stop processes or look at the clock, and have the
# machine to themselves, unless they stand below; so do single tests that are marked ``alone``.
_PARALLEL = frozenset(
    {"admission", "answers", "backend", "benchmarks", "block_products", "calibration",
     "catalogue_cost", "changed_files", "checkpoints", "cli", "cli_mistakes", "cli_speculation",
     "cli_tokens", "cluster_plan", "code_books", "config_fields", "config_hybrid", "config_shape",
     "config_wholes", "content", "content_check", "cost", "crc32c", "darwin", "demo_moe", "deploy",
     "draft_length", "economy", "encoding", "engine_cost", "failover_rules", "fairness", "families",
     "figures", "file_packing", "flush_to_zero", "formats", "further_layer", "fuzz_bodies",
     "fuzz_files", "fuzz_native", "generation", "gguf", "gguf_blocks", "gguf_damage", "gguf_models",
     "gguf_quantised", "gguf_tokens", "grammars", "groups", "hardware", "hub", "known_models",
     "last_hidden", "llama_logits", "load", "logprobs", "machine", "measured_plan", "messages",
     "mixture_files", "mixture_program_checks", "mixtures", "names", "native", "noise",
     "not_finite", "one_answer", "outside_files", "pages", "panel_cache", "plan_cli", "plan_links",
     "plan_options", "plan_pictures", "plan_search", "plan_simulation", "plan_talks",
     "plan_together", "private_cache", "processors", "program", "program_checks",
     "protocol_requests", "protocol_streams", "reference", "reference_math", "reference_products",
     "rendering", "said", "sampling", "scheduler", "sealing", "served_answers", "served_defaults",
     "special_tokens", "speculation", "split", "states", "stored_damage", "stored_formats",
     "stored_tensors", "synth", "synth_families", "teller", "tensor_views", "text", "thought_limit",
     "transformers_agreement", "usable_memory", "whole_file", "wire", "without_engine", "work"}
)  # fmt: skip

# Modules that mostly wait: for machines that vanished, for answers that never come, for commands to
# load. A few of their tests at a time leave the processors free enough for each one's clock.
_WAITING = frozenset(
    {"cache_folder", "callers", "chaos", "chats", "cli_errors", "cluster_groups", "damaged_links",
     "door", "encrypted_hosts", "encryption", "exchange_failures", "failover", "failover_hosts",
     "failover_http", "handshake", "host_resources", "hosts", "http_chat", "http_completions",
     "http_health", "http_keys", "http_limits", "http_programs", "http_protocols", "http_stop",
     "http_streams", "interrupted_loading", "interrupts", "intruders", "launcher", "leaving",
     "loading_nodes", "membership", "mesh", "named_hosts", "outages", "page", "progress",
     "reception", "rejoin", "rendezvous", "replicas", "replicas_http", "serve_cli", "shared_memory",
     "sharing", "standard_streams", "standby", "status", "status_machines", "tampering", "tools",
     "topologies", "worker", "workers_models"}
)  # fmt: skip


def pytest_sessionstart() -> None:
    """Shells ignore SIGINT in what they start in the background, and `nohup` SIGHUP; commands
    inherit that."""
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL),
    ):  # fmt: skip
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        alone = any(item.get_closest_marker(name) for name in ("alone", "late"))
        module = item.path.stem.removeprefix("test_")
        if not alone and module in _PARALLEL:
            item.add_marker(pytest.mark.parallel)
        elif not alone and module in _WAITING:
            item.add_marker(pytest.mark.waiting)


def pytest_collection_finish(session: pytest.Session) -> None:
    """A run of most of the tests has its compilers started at once: they take minutes."""
    wanted = {item.path.stem for item in session.items}
    if {
        "test_fuzz_native",
        "test_processors",
    } <= wanted and "PYTEST_XDIST_WORKER" not in os.environ:
        late = "test_macos_build" in wanted
        runners = (partial(build_runner, name) for name in RUNNERS if late or name != "clang")
        macos = [build_macos_runner] if late else []
        start_builds([partial(build_fuzzer, quick=True), *runners, *macos])


@pytest.fixture(autouse=True)
def no_cache_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANDWEAVE_CACHE", "off")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
