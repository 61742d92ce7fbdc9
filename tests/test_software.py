"""Named engines: which splits each of them has, and which is named."""

from __future__ import annotations

import pytest

from bandweave.cli.plan.answer import answer_columns, columns_json
from bandweave.cli.plan.setup import parse_machines
from bandweave.models.known_models import known_model
from bandweave.planning.costs.efficiency import factors
from bandweave.planning.costs.engines import find_engine
from bandweave.planning.costs.software import (
    SplitRules,
    find_software,
    software_names,
    software_title,
)
from bandweave.planning.costs.weight_bytes import find_format
from bandweave.planning.search.columns import (
    Machines,
    best_answer,
    engine_answer,
    software_setup,
    would_allow,
)
from bandweave.planning.search.explain import left_out_sentences
from bandweave.planning.search.layout import Question

NAMES = ("llama.cpp", "ik_llama.cpp", "mlx", "exo", "vllm", "sglang", "ktransformers",
         "distributed-llama")  # fmt: skip


def question(model: str = "llama-3.1-70b", format_name: str = "q4") -> Question:
    return Question(model=known_model(model), weights=find_format(format_name))


def machines(on: str, *links: str, engine: str = "any") -> Machines:
    return parse_machines([on], list(links), {}, engine)


def test_every_engine_has_its_factors_and_traits() -> None:
    assert software_names() == NAMES
    for name in NAMES:
        software = find_software(name)
        for kind, label in software.on.items():
            assert factors(label, kind)
        for cards in software.beside_cards:
            assert factors(software.beside_host, "cpu-server") and find_engine(cards)
        assert software.source and software.title
        assert software.traits(inside=True).name == software.traits(inside=False).name == name
    # Cards on a bus have splits of their own; cards joined by NVLink those of their kind.
    vllm = find_software("vllm")
    on_bus = vllm.traits(inside=True, kinds=("geforce", "geforce"))
    assert on_bus.exchange_s == find_engine("vllm-cards").exchange_s
    for kinds in (("nvidia-dc", "nvidia-dc"), ("geforce", "nvidia-dc"), ()):
        assert (
            vllm.traits(inside=True, kinds=kinds).exchange_s == find_engine("gpt-fast").exchange_s
        )
    assert (
        vllm.traits(inside=False, kinds=("geforce",)).exchange_s == find_engine("vllm").exchange_s
    )
    for on, name in (("2x rtx-3090", "vllm-cards"), ("2x h100", "gpt-fast")):
        setup = software_setup(vllm, question("qwen3-32b"), machines(on, engine="vllm"))
        assert setup is not None
        assert setup.engine.exchange_s == find_engine(name).exchange_s, on
    with pytest.raises(ValueError, match=r"did you mean llama\.cpp"):
        find_software("lama.cpp")


@pytest.mark.parametrize(
    ("tensor", "model", "counts"),
    [("", "llama-3.1-70b", []), ("any", "llama-3.1-70b", [2, 3, 4, 5, 6, 7, 8]),
     ("heads", "llama-3.1-70b", [2, 4, 8]), ("heads", "deepseek-r1", [2, 4, 8]),
     ("powers", "qwen3-30b-a3b", [2, 4]), ("cache", "llama-3.1-8b", [2, 4, 8]),
     ("cache", "deepseek-r1", [2, 4, 8]), ("heads", "gpt-oss-120b", [2, 4, 8])],
)  # fmt: skip
def test_tensor_splits_are_those_that_divide(tensor: str, model: str, counts: list[int]) -> None:
    rules, shape = SplitRules(tensor=tensor), known_model(model)
    found = [n for n in range(2, 9) if rules.allow(shape, [tuple(range(n))], ("",) * n)]
    assert found == counts


def test_only_splits_that_the_software_has_are_offered() -> None:
    """The trial: CUDA and Metal in one tensor split; three, five, seven parts; over RPC."""
    asked = question(format_name="gguf-q4_k_m")
    unlike = machines("rtx-4090 + m4-max-128", "ethernet-10g")
    for name in NAMES:
        answer = engine_answer(asked, unlike, name)
        for plan in answer.plans if answer is not None else ():
            assert plan.kind in ("one", "pipeline"), (name, plan.kind)
    for name in NAMES:
        answer = engine_answer(
            question("deepseek-r1"), machines("3x m3-ultra-512", "tb5-rdma"), name
        )
        for plan in answer.plans if answer is not None else ():
            assert plan.kind != "tensor" or len(plan.machines) == 2, (name, len(plan.machines))
    four = engine_answer(asked, machines("4x rtx-3090"), "llama.cpp")
    assert four is not None and {plan.kind for plan in four.plans} <= {"one", "pipeline"}
    mac = machines("2x m3-ultra-512", "thunderbolt-5-tcp")
    exo = engine_answer(asked, mac, "exo")
    assert exo is not None and {plan.kind for plan in exo.plans} <= {"one", "pipeline"}
    over = engine_answer(asked, machines("2x m3-ultra-512", "tb5-rdma"), "exo")
    assert over is not None and "tensor" in {plan.kind for plan in over.plans}


def test_equal_shares_where_the_software_has_no_others() -> None:
    answer = engine_answer(question(), machines("m3-ultra-512 + m3-ultra-256", "tb5-rdma"), "mlx")
    assert answer is not None
    for plan in answer.plans:
        for stage in plan.deployment.stages:
            assert len(set(stage.shares)) == 1


def test_machines_that_it_does_not_run_on_are_left_out() -> None:
    asked = question("llama-3.1-8b")
    answer = engine_answer(asked, machines("m4-max-128 + rtx-4090", "ethernet-10g"), "mlx")
    assert answer is not None and answer.best.machines == (0,)
    assert left_out_sentences(answer) == [
        "Left out: rtx-4090. The software does not run on rtx-4090."
    ]
    assert engine_answer(asked, machines("rtx-4090"), "mlx") is None
    setup = software_setup(find_software("mlx"), asked, machines("rtx-4090"))
    assert setup is None


def test_any_is_the_best_that_exists_and_is_named() -> None:
    asked = question("deepseek-r1", "q8")
    two = machines("2x m3-ultra-512", "tb5-rdma")
    best = best_answer(asked, two)
    assert best is not None and best.setup.engine.name in NAMES
    others = [engine_answer(asked, two, name) for name in NAMES]
    assert best.best.seconds == min(each.best.seconds for each in others if each is not None)
    would = would_allow(asked, two)
    assert would is not None and would.best.seconds <= best.best.seconds * 1.05


def test_text_and_json_name_the_software() -> None:
    columns = answer_columns(question(format_name="gguf-q4_k_m"), machines("2x rtx-5090"))
    found = columns_json(columns, 0.3)
    assert found["engine"] == columns.engine in NAMES
    assert found["hardware"]["engine"] == columns.engine
    assert software_title(columns.engine)
    if columns.would is not None:
        assert columns.would.best.seconds < columns.limit.best.seconds
    one = answer_columns(
        question(format_name="gguf-q4_k_m"), machines("2x rtx-5090", engine="llama.cpp")
    )
    assert one.engine == "llama.cpp"


def test_an_engine_that_cannot_says_so() -> None:
    with pytest.raises(ValueError, match="MLX"):
        answer_columns(question(), machines("2x rtx-5090", engine="mlx"))
    with pytest.raises(ValueError, match="no engine is called 'nosuch'"):
        machines("rtx-4090", engine="nosuch")


def test_cards_in_a_machine_are_nodes_of_their_own_for_who_uses_no_processor() -> None:
    asked = question("llama-3.1-70b", "gguf-q4_k_m")
    answer = engine_answer(asked, machines("epyc-9354-12ch with 2x rtx-5090"), "vllm")
    assert answer is not None and answer.best.kind == "tensor"
    assert answer.best.link == "pcie-5"
