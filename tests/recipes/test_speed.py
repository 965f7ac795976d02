"""The speed benchmark, without its clock: (1) both sides are given the same weights and as many tokens as a case says; (2) the
operations of a case are those that PyTorch counts; (3) participants take turns, one that fails is left out with its reason,
and results survive; (4) every question gets a table, a picture and a place on the page; (5) what a step needs is measured
where the step is."""

from __future__ import annotations

import io
import json
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from turnwise.errors import TurnwiseError
from turnwise.recipes.speed import ours
from turnwise.recipes.speed.cases import SIZES, WORKLOADS, Case, case
from turnwise.recipes.speed.flops import work
from turnwise.recipes.speed.material import build_model, build_tokenizer, first_words, never_sampled, words
from turnwise.recipes.speed.measure import Arena, Participant, Worker
from turnwise.recipes.speed.meter import Meter, Peak, Stopped
from turnwise.recipes.speed.plan import NAMES, check_names, plan
from turnwise.recipes.speed.report import markdown, write
from turnwise.recipes.speed.results import Record, load, new_results, records, save
from turnwise.recipes.speed.run import bench, launcher
from turnwise.recipes.speed.tables import answers, missing

SMALL: Mapping[str, Case] = {
    "grpo": case("grpo", "XS", groups=2, group_size=2, prompt=6, actions=5),
    "turns": case("turns", "XS", groups=2, group_size=2, prompt=6, turns=3, actions=4, observation=7),
    "sft": case("sft", "XS", groups=3, actions=9),
    "dpo": case("dpo", "XS", groups=2, prompt=6, actions=5),
    "reward-model": case("reward-model", "XS", groups=2, prompt=6, actions=5),
    "ppo": case("ppo", "XS", groups=3, prompt=6, actions=5),
    "decode": case("decode", "XS", groups=2, prompt=6, actions=5),
}


def steps(work: Any, given: Case, n: int = 1, dtype: str = "fp32") -> list[dict[str, Any]]:
    """What a side answers to `n` orders for a step."""
    orders = io.StringIO('{"do": "step"}\n' * n + '{"do": "close"}\n')
    answers = io.StringIO()
    with suppress(Stopped):
        work(given, dtype, Meter(orders, answers), {})
    told = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert told[0]["ready"]
    return told[1:]


# ---- what is measured ------------------------------------------------------------------------------------------------


def test_counts_of_a_case_by_hand() -> None:
    turns = SMALL["turns"]
    assert turns.length == 6 + 3 * 4 + 2 * 7
    assert (turns.rows, turns.tokens, turns.sampled) == (4, 4 * 32, 4 * 12)
    assert turns.distinct == 2 * 6 + 4 * 26  # a group of two shares the first observation
    assert turns.predicted == 4 * 12
    assert (SMALL["sft"].tokens, SMALL["sft"].sampled, SMALL["sft"].predicted) == (30, 0, 27)
    assert case("turns").length == 32 + 10 * 16 + 9 * 32
    assert SIZES["S"].parameters == 4 * (4 * 128 * 128 + 3 * 128 * 512) + 2 * 512 * 128


def test_a_text_has_as_many_tokens_as_words_wherever_it_stands() -> None:
    given = SMALL["turns"]
    tokenizer = build_tokenizer(given.shape)
    ids = tokenizer.encode(words(given.shape, 20, seed=1))
    assert len(ids) == 20
    assert not set(ids) & set(never_sampled())
    assert tokenizer.decode(ids) == words(given.shape, 20, seed=1)
    chat = [{"role": "user", "content": first_words(given, 0)}]
    asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert len(asked) == given.prompt


def test_both_sides_build_the_same_weights() -> None:
    torch.manual_seed(1)
    first = build_model(SMALL["grpo"]).state_dict()
    torch.manual_seed(2)
    second = build_model(SMALL["grpo"]).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert sum(t.numel() for n, t in first.items() if t.dim() == 2) == SIZES["XS"].parameters


@pytest.mark.parametrize("name", list(SMALL))
def test_our_side_does_what_the_case_says(name: str) -> None:
    given = SMALL[name]
    for answer in steps(ours.run, given, 2):
        assert answer["counts"] == {"tokens": given.tokens, "sampled": given.sampled, "rows": given.rows}
        assert answer["cpu"] > 0
        if WORKLOADS[name].samples and name != "decode":
            assert set(answer["phases"]) == {"rollout", "update"}


def test_our_side_in_bfloat16() -> None:
    (answer,) = steps(ours.run, SMALL["grpo"], dtype="bf16")
    assert answer["counts"]["sampled"] == SMALL["grpo"].sampled


def test_operations_are_those_that_pytorch_counts() -> None:
    """With one row, nothing is shared, so both counts agree; eager attention computes the half that it masks as well."""
    given = replace(SMALL["sft"], groups=1)
    model = build_model(given)
    model.set_attn_implementation("eager")
    ids = torch.tensor([build_tokenizer(given.shape).encode(words(given.shape, given.length, 0))])
    # The head at the places that predict something: all but the last.
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, logits_to_keep=torch.arange(given.length - 1)).logits.sum().backward()
    masked = given.length * (given.length - 1) // 2
    needed = work(given)
    assert needed.every == needed.distinct
    attention = 3 * 4 * given.shape.layers * given.shape.hidden * masked
    assert counter.get_total_flops() == needed.every + attention


def test_a_shared_prompt_is_needed_once() -> None:
    apart = work(case("grpo", "XS", groups=16, group_size=4))
    assert apart.distinct < apart.every
    alone = work(case("grpo", "XS", groups=64, group_size=1))
    assert alone.distinct == alone.every == apart.every


# ---- the stopwatch ---------------------------------------------------------------------------------------------------


def test_the_stopwatch_measures_what_lies_between_two_calls() -> None:
    def side(_case: Case, _dtype: str, meter: Meter, _options: Any) -> None:
        meter.settings(rows=4)
        while meter.next():
            with meter.phase("rollout"):
                time.sleep(0.02)
            with meter.phase("rollout"):
                time.sleep(0.01)
            meter.count(tokens=3)
            meter.count(tokens=4)
            time.sleep(0.02)

    first, second = steps(side, SMALL["grpo"], 2)
    for answer in (first, second):
        assert answer["seconds"] >= 0.05
        assert 0.03 <= answer["phases"]["rollout"][0] <= answer["seconds"] - 0.02
        assert answer["cpu"] < answer["seconds"]  # a sleeping process computes nothing
        assert answer["counts"] == {"tokens": 7}


def test_a_loop_that_cannot_be_asked_is_stopped() -> None:
    meter = Meter(io.StringIO(""), io.StringIO())  # the parent has gone
    with pytest.raises(Stopped):
        meter.next_or_stop()


def test_peak_memory_is_that_on_top_of_what_is_held() -> None:
    held = torch.ones(4_000_000)
    peak = Peak("cpu")
    before = peak.rise()
    if before is None:
        pytest.skip("this system does not tell how much memory a process has had")
    extra = torch.ones(25_000_000)
    del extra
    rise = peak.rise()
    assert rise is not None
    assert 95e6 < rise - before < 140e6
    assert float(held.sum()) == 4_000_000


def test_a_gpu_is_waited_for_before_a_clock_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda name=name: calls.append(name))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 100)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 130)
    orders, answers = io.StringIO('{"do": "step", "memory": true}\n'), io.StringIO()
    meter = Meter(orders, answers, "cuda")
    assert meter.next()
    assert calls == ["empty_cache", "reset_peak_memory_stats", "synchronize"]
    assert not meter.next()
    assert calls[3:] == ["synchronize"]
    assert json.loads(answers.getvalue().splitlines()[1])["peak"] == 30


# ---- taking turns ----------------------------------------------------------------------------------------------------


class Scripted:
    """A process that answers with figures from a list; an exception's text where it fails."""

    def __init__(self, who: Participant, log: list[str], fails: Mapping[str, int]) -> None:
        self.who, self.log, self.n = who, log, 0
        self.fails = fails.get(who.name, -1)

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        if order["do"] == "open":
            self.n, self.case = 0, Case(**order["case"])
            return {"ready": True, "settings": {"rows": 8} if self.who.side != "gemm" else {"gpu": ""}}
        if order["do"] == "close":
            return {"closed": True}
        self.n += 1
        self.log.append(self.who.name)
        if self.n == self.fails:
            return {"error": "RuntimeError: out of memory"}
        seconds = {"ours": 1.0, "gemm": 0.1}.get(self.who.side, 2.0 + 0.5 * self.n) * self.case.rows / 64
        rates = {"fp32 plain": 100.0, "fp32 oneDNN": 120.0, "bf16 plain": 50.0}
        return {
            "seconds": 1.1 * seconds, "cpu": seconds, "peak": 50_000_000 if self.who.side == "ours" else 200_000_000,
            "phases": {"rollout": [0.4, 0.3], "update": [0.7, 0.6]} if self.who.side == "ours" else {},
            "counts": rates if self.who.side == "gemm" else {"tokens": self.case.tokens},
        }  # fmt: skip

    def end(self) -> None:
        self.log.append(f"end of {self.who.name}")


def scripted(log: list[str], **fails: int) -> Any:
    return lambda who, case: Scripted(who, log, {name.replace("_", " "): at for name, at in fails.items()})


BOTH = (Participant("ours"), Participant("trl"))


def test_participants_take_turns_after_a_step_that_does_not_count() -> None:
    log: list[str] = []
    found = Arena(scripted(log)).measure("steps", case("grpo"), BOTH, pairs=2, seconds=60)
    pair = ["gemm fp32", "ours fp32", "trl fp32"]
    assert log == ["ours fp32", "trl fp32", *pair, *pair, "ours fp32", "trl fp32"]
    record = Record(found.as_dict())
    assert record.times("trl fp32") == [3.0, 3.5]  # steps 2 and 3; step 1 is the warm-up, step 4 the memory's
    assert record.same_dtype("fp32") == [3.0, 3.5]
    assert record.peak("ours fp32") == 50_000_000
    assert record.rate("fp32") == 120.0
    assert record.phase("ours fp32", "update") == 0.6


def test_no_further_round_begins_when_the_time_is_up() -> None:
    found = Arena(scripted([])).measure("steps", case("grpo"), BOTH, pairs=50, seconds=0)
    assert len(found.sides["ours fp32"]["seconds"]) == 1


@pytest.mark.parametrize("step", [1, 2, 4])
def test_whoever_fails_is_left_out_with_the_reason(step: int) -> None:
    log: list[str] = []
    found = Arena(scripted(log, trl_fp32=step)).measure("steps", case("grpo"), BOTH, pairs=2, seconds=60)
    assert found.skipped == {"trl fp32": "RuntimeError: out of memory"}
    assert list(found.sides) == ["ours fp32"]
    assert len(found.sides["ours fp32"]["seconds"]) == 2
    assert log.count("end of trl fp32") == 1


def test_processes_are_kept_between_cases_and_end_with_another_number_of_threads() -> None:
    log: list[str] = []
    arena = Arena(scripted(log))
    for threads in (1, 1, 2):
        arena.measure("steps", case("grpo", threads=threads), BOTH, pairs=1, seconds=9, memory=False)
    assert sorted(entry for entry in log if entry.startswith("end")) == [
        "end of gemm fp32",
        "end of ours fp32",
        "end of trl fp32",
    ]
    arena.close()
    assert sum(entry.startswith("end") for entry in log) == 6


def test_a_worker_is_a_process_that_answers(tmp_path: Path) -> None:
    given = SMALL["grpo"]
    worker = Worker(Participant("gemm"), given, tmp_path / "log" / "gemm.txt")
    order = {"do": "open", "case": given.as_dict(), "dtype": "fp32", "options": {}}
    assert worker.ask({**order, "case": {**given.as_dict(), "threads": 0}})["error"].startswith("RuntimeError")
    assert worker.ask(order)["settings"]["gpu"] == ""
    rates = worker.ask({"do": "step"})["counts"]
    assert rates["fp32 plain"] > 0.1
    assert worker.ask({"do": "close"}) == {"closed": True}
    worker._process.kill()
    assert "ended with status -9" in worker.ask(order)["error"]
    worker.end()
    assert "Traceback" in (tmp_path / "log" / "gemm.txt").read_text()


def test_an_old_release_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TurnwiseError, match=r"pip install --no-deps --target .*old trl==1.12.0"):
        launcher(tmp_path, tmp_path / "old")(Participant("trl-1.12"), SMALL["ppo"])


# ---- results ---------------------------------------------------------------------------------------------------------


def measured(folder: Path, **fails: int) -> dict[str, Any]:
    return bench(
        tuple(NAMES), ("S",), folder, created="2026-01-02T03:04:05", threads=(1, 2), pairs=2, launch=scripted([], **fails)
    )  # fmt: skip


def test_every_question_has_a_table_a_picture_and_a_place_on_the_page(tmp_path: Path) -> None:
    results = measured(tmp_path)
    found = {answer.key: answer for answer in answers(results)}
    assert list(found) == [
        "steps", "floor", "turns", "shapes", "phases", "decoding", "memory", "start-up", "threads", "settings",
    ]  # fmt: skip
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "results.md").read_text()
    for answer in found.values():
        assert all(len(row) == len(answer.heading) for row in answer.rows)
        assert answer.charts
        assert answer.title in page
        assert answer.title in text
    pictures = list(tmp_path.glob("*.svg"))
    assert len(pictures) == sum(len(answer.charts) for answer in found.values())
    for picture in pictures:
        assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    grpo = next(row for row in found["steps"].rows if row[0] == "GRPO, one turn")
    # Steps 2 and 3 of the other side take 3 and 3.5 s, ours 1 s.
    assert grpo[2:5] == ["3.25", "1.00", "3.25 [3.00, 3.50]"]
    assert {row[-1] for row in found["memory"].rows} == {"4"}
    share = next(row for row in found["floor"].rows if row[0] == "GRPO, one turn, S")
    assert share[2] == "120"
    needed = work(case("grpo"))
    assert share[4] == f"{100 * needed.every / 1.0 / 120e9:.0f} %"
    assert share[5] == f"{100 * needed.distinct / 1.0 / 120e9:.0f} %"
    assert share[6:] == ["2,521", "8,192"]  # 8,192 tokens in 3.25 s and in 1 s


def test_the_file_is_read_again(tmp_path: Path) -> None:
    results = measured(tmp_path, trl_bf16=1)
    again = load(tmp_path)
    assert again == json.loads(json.dumps(results))
    assert again["schema"] == 1
    assert again["machine"]["versions"]["torch"]
    assert markdown(again) + "\n" == (tmp_path / "results.md").read_text()
    assert "GRPO, one turn, S, trl bf16: RuntimeError: out of memory" in missing(again)
    assert all(isinstance(record, Record) for record in records(again))
    # A dtype that one side has no figures of leaves dashes, not nothing.
    assert "–" in markdown(again)


def test_results_without_measurements_are_rendered(tmp_path: Path) -> None:
    empty = new_results("2026-01-02", {"sizes": ["S"]})
    save(empty, tmp_path)
    write(load(tmp_path), tmp_path)
    assert "processor" in (tmp_path / "results.md").read_text()


def test_cheap_cases_come_first_and_curves_use_one_dtype() -> None:
    entries = plan(check_names(()), ("S", "M"), threads=(1, 2), dtypes=("fp32", "bf16"), device="cpu", rivals=True)
    assert entries[0].case.size == "S"
    assert {len(entry.participants) for entry in entries if entry.question in ("turns", "shapes")} == {2}
    assert {len(entry.participants) for entry in entries if entry.question == "steps"} == {4}
    assert {entry.case.turns for entry in entries if entry.question == "turns"} == {5, 10, 20, 40}
    assert len({entry.name for entry in entries}) == len(entries)
    alone = plan(("ppo",), ("S",), threads=(1,), dtypes=("fp32",), device="cpu", rivals=False)
    assert [who.side for who in alone[0].participants] == ["ours"]


def test_the_search_for_settings_changes_one_at_a_time() -> None:
    assert "settings" not in check_names(())
    (entry, *_) = plan(("settings",), ("S",), threads=(1,), dtypes=("fp32",), device="cpu", rivals=True)
    assert {who.side for who in entry.participants} == {"trl", "ours"}
    assert entry.participants[0] == Participant("trl")
    assert ("rows", 64) in [pair for who in entry.participants for pair in who.options]
    assert len({who.name for who in entry.participants}) == len(entry.participants)
    assert not plan(("settings",), ("S",), threads=(1,), dtypes=("fp32",), device="cpu", rivals=False)


def test_nothing_measured_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    def broken(who: Participant, case: Case) -> Any:
        raise TurnwiseError("no such process")

    with pytest.raises(TurnwiseError, match="nothing could be measured: no such process"):
        bench(("sft",), ("S",), tmp_path, created="2026-01-02", launch=broken)
