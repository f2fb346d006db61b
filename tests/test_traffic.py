"""Captured prompts make a drafter better or change nothing; without Ray, and training itself left out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tiny_recipe import tiny_recipe, write_text
from tiny_target import save_target

from cluster.config import Config
from cluster.run import Run
from cluster.traffic import Round
from common.registry import Registry
from common.settings import SettingsError
from common.storage import RegistryError
from common.traffic import ServedPrompt
from common.types import SpeculationStats
from train import traffic_tasks
from train.distillation.answers import Prompt
from train.distillation.store import read_answers
from train.evaluation.improvement import Compared, Improvement, compare
from train.evaluation.intervals import Interval
from train.gate import NotWorthPublishing, check_improvement
from train.packing import PackedRows
from train.pair import CorpusError, Pair
from train.recipe import TrafficSettings
from train.results import verdict_table, verdicts
from train.selection import with_needs
from train.step import Step
from train.traffic import Snapshot, read_traffic
from train.traffic_tasks import Verdict

REPLACE = msgspec.structs.replace
ENCODE = msgspec.json.encode
PROMPTS = [f"Zimmer {number} hat ein Bad.\n" for number in range(40)]


def write_traffic(folder: Path, prompts: list[str], language: str = "de", name: str = "a") -> Path:
    folder.mkdir(exist_ok=True)
    lines = [ENCODE(ServedPrompt(language=language, prompt=prompt)) for prompt in prompts]
    (folder / f"{name}.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    return folder


class Published:
    """A run of one language with a published drafter, v0001, and captured prompts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.target = save_target(folder / "target")
        write_text(folder, "de", "Die Nummer {} ist hier.")
        self.traffic = write_traffic(folder / "traffic", PROMPTS)
        traffic = TrafficSettings(min_prompts=30, held_out_share=0.3)
        recipe = REPLACE(tiny_recipe(), target=None, traffic=traffic)
        assert recipe.traffic_finetuning == recipe.finetune
        recipe = REPLACE(recipe, evaluate=REPLACE(recipe.evaluate, prompts=8))
        registry = str(folder / "registry")
        config = Config(languages=("de", "fr"), train=recipe)
        self.run = Run(folder=folder / "run", config=config, given_target=self.target, registry=registry)
        self.registry = Registry(registry)
        write_text(folder, "fr", "Le numéro {} est ici.")
        plan = self.run.plan(str(folder))
        do({name: step for name, step in plan.steps.items() if step.owner == "de"})

    def round(self, *, force: bool = False) -> Round:
        return Round(self.run, str(self.folder), str(self.traffic), force=force)

    def current(self) -> str:
        manifest = self.registry.current("de")
        assert manifest is not None
        return manifest.version


def do(steps: dict[str, Step], trained: Path | None = None) -> list[str]:
    """Do what is not done; a trained model is the one in `trained`, or what it began with. Returns what was done."""
    done = [name for name, step in steps.items() if not step.done]
    for name in done:
        step = steps[name]
        step.stage.begin()
        for _ in step.work(step.stage, *step.arguments):
            pass
        if step.training is not None:
            shutil.copytree(trained or step.training.initial, step.stage.folder / "model")
            step.stage.finish()
        assert step.done, name
    return done


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Published(tmp_path_factory.mktemp("published")).folder


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return Published(tmp_path)


def verdict_of(made: Round) -> Verdict:
    return verdicts(made.plan.improvements.values())["de"]


def test_what_is_better_on_traffic_is_promoted_and_nothing_is_done_twice(published: Published) -> None:
    first = published.round()
    assert set(do(first.plan.improvements, trained=published.target)) == {
        *("fr/corpus", "de/corpus-traffic", "de/distill-traffic", "de/finetune-traffic"),
        *("de/evaluate/finetune-traffic", "de/publish/traffic"),
    }, "the text, the ordinary answers and the published drafter are there"
    verdict = verdict_of(first)
    assert (verdict.start, verdict.promoted, verdict.why_not) == ("v0001", "v0002", None)
    assert verdict.traffic.difference.low > 0 and verdict.traffic.before.value < verdict.traffic.after.value
    assert published.current() == "v0002"
    assert published.registry.manifest("de", "v0002").provenance["traffic"]["start"] == "v0001"
    assert verdict_table({"de": verdict}).row_count == 2

    first.__exit__()
    again = published.round()
    assert do(again.plan.improvements) == [] and verdict_of(again) == verdict, "the same prompts, whoever is current"
    again.__exit__()
    write_traffic(published.traffic, ["Noch eine Frage zum Zimmer.\n"], name="b")
    later = published.round()
    assert "de/publish/traffic" in do(later.plan.improvements)
    assert (verdict_of(later).start, verdict_of(later).promoted) == ("v0002", None), "it goes on from what is current"
    assert published.current() == "v0002"


def test_what_is_not_better_is_not_promoted_unless_it_is_forced(published: Published) -> None:
    unchanged = published.round()
    do(unchanged.plan.improvements)
    verdict = verdict_of(unchanged)
    assert verdict.promoted is None and verdict.traffic.difference.value == 0
    assert verdict.why_not is not None and verdict.why_not.startswith("not certainly better on held-out traffic")
    assert published.current() == "v0001" and len(published.registry.versions("de")) == 1
    assert do(published.round().plan.improvements) == []
    forced = published.round(force=True)
    assert do(forced.plan.improvements) == ["de/publish/traffic"]
    assert verdict_of(forced).promoted == published.current() == "v0002"


def test_what_somebody_has_promoted_meanwhile_stays(published: Published) -> None:
    begun = published.round()
    current = published.registry.current("de")
    assert current is not None
    facts = {name: getattr(current, name) for name in ("target", "fingerprint", "metrics")}
    folder = published.registry.fetch(current, published.folder)
    other = published.registry.publish("de", folder, provenance={}, **facts)
    published.registry.promote("de", other.version)
    do(begun.plan.improvements, trained=published.target)
    assert verdict_of(begun).why_not == "v0001 is not current any more"
    assert published.current() == other.version


def test_a_promotion_that_was_interrupted_is_made_once(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = published.round()
    monkeypatch.setattr(Registry, "promote", lambda *_: (_ for _ in ()).throw(OSError("the machine died")))
    with pytest.raises(OSError, match="died"):
        do(begun.plan.improvements, trained=published.target)
    monkeypatch.undo()
    assert do(published.round().plan.improvements) == ["de/publish/traffic"]
    assert published.current() == "v0002" and len(published.registry.versions("de")) == 2


def test_prompts_are_split_decontaminated_and_learned_with_the_ordinary_answers(published: Published) -> None:
    corpus = published.run.folder / "de" / "corpus"
    [test, *_] = map(msgspec.json.Decoder(Pair).decode, (corpus / "test.jsonl").read_bytes().splitlines())
    more = [f"Translate German to English:{test.source.upper()}\n", "lang " * 60, PROMPTS[0].upper()]
    write_traffic(published.traffic, more, name="b")
    plan = published.round().plan
    do(plan.improvements)
    prepared = plan.steps["de/corpus-traffic"].stage
    report = prepared.facts()
    assert (report["contaminated"], report["too_long"]) == (1, 1)
    read = msgspec.json.Decoder(Prompt).decode_lines
    parts = {part: read((prepared.folder / f"{part}.jsonl").read_bytes()) for part in ("train", "test")}
    assert len(parts["train"]) + len(parts["test"]) == len(PROMPTS) and len(parts["test"]) == report["test"] > 3
    held_out = {prompt.tokens for prompt in parts["test"]}
    asked = {answer.prompt for answer in read_answers(plan.steps["de/distill-traffic"].stage.folder / "answers")}
    assert asked and not asked & held_out
    rows = PackedRows.load(plan.steps["de/finetune-traffic"].stage.folder / "rows").input_ids.reshape(-1).tolist()
    ordinary = list(read_answers(plan.steps["de/distill"].stage.folder / "answers"))
    learned = ",".join(map(str, rows))
    assert all(",".join(map(str, answer.prompt)) in learned for answer in ordinary)
    assert any(",".join(map(str, prompt)) in learned for prompt in asked)


def test_a_held_out_sentence_in_a_conversation_is_left_out(published: Published) -> None:
    """Its template writes all on one line, so that only the message itself shows what it is about."""
    corpus = published.run.folder / "de" / "corpus"
    [test, *_] = map(msgspec.json.Decoder(Pair).decode, (corpus / "test.jsonl").read_bytes().splitlines())
    asked = f"Translate German to English: {test.source}"
    served = ServedPrompt(language="de", prompt=f"USER: {asked} ASSISTANT:", rendered=True, messages=(asked,))
    (published.traffic / "b.jsonl").write_bytes(ENCODE(served) + b"\n")
    plan = published.round().plan
    do(with_needs(plan.steps, ["de/corpus-traffic"]))
    assert plan.steps["de/corpus-traffic"].stage.facts()["contaminated"] == 1


def test_no_more_ordinary_answers_are_learned_than_new_ones(
    published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = published.round().plan
    do(plan.improvements)
    traffic, ordinary = (plan.steps[f"de/{name}"].stage for name in ("distill-traffic", "distill"))
    for shard in sorted((traffic.folder / "answers").glob("shard-*"))[1:]:
        shutil.rmtree(shard)
    called: list[tuple[Any, ...]] = []
    monkeypatch.setattr(traffic_tasks, "prepare_finetuning", lambda *given: iter(called.append(given) or ()))
    step = plan.steps["de/finetune-traffic"]
    list(step.work(step.stage, *step.arguments))
    [(*_, answers, most, pretrained)] = called
    assert (answers, most, pretrained) == ([traffic, ordinary], 2 * 4, True)


def test_a_round_that_was_interrupted_goes_on_with_its_own_prompts(published: Published) -> None:
    begun = published.round()
    do(dict(list(begun.plan.improvements.items())[:-1]))
    begun.__exit__()
    write_traffic(published.traffic, ["Noch eine Frage zum Zimmer.\n"], name="b")
    assert do(published.round().plan.improvements) == ["de/publish/traffic"]


def test_prompts_that_turn_out_too_few_are_not_kept_for_ever(published: Published) -> None:
    corpus = published.run.folder / "de" / "corpus"
    tests = [json.loads(line)["source"] for line in (corpus / "test.jsonl").read_bytes().splitlines()]
    write_traffic(published.traffic, [*PROMPTS[:29], *tests])
    begun = published.round()
    with pytest.raises(CorpusError, match=r"de: 29 prompts are left, traffic\.min_prompts is 30"):
        do(begun.plan.improvements)
    begun.__exit__()
    assert not (published.run.folder / "traffic").exists()


def test_a_look_leaves_no_prompts_behind(published: Published) -> None:
    published.round().__exit__()
    assert not (published.run.folder / "traffic").exists()


@pytest.mark.parametrize(
    ("spoil", "kind", "problem"),
    [
        (lambda f: shutil.rmtree(f), CorpusError, "traffic: no such folder"),
        (lambda f: (f / "a.jsonl").unlink(), CorpusError, "traffic: no captured prompts"),
        (lambda f: (f / "b.jsonl").write_text("\n"), CorpusError, r"b\.jsonl:1: not a captured prompt"),
        (lambda f: (f / "b.jsonl").write_text('{"language": "../x", "prompt": ""}\n'), CorpusError, "language `../x`"),
        (lambda f: (f / "b.jsonl").write_text('{"language": "de", "ip": 1}\n'), CorpusError, "ip"),
        (lambda f: write_traffic(f, PROMPTS[:5]), SettingsError, r"min_prompts is 30, there are 5 in de"),
        (lambda f: write_traffic(f, PROMPTS, "fr"), RegistryError, "fr: no drafter is published"),
    ],
)
def test_traffic_that_cannot_be_used_is_told_before_any_work(
    made: Path, tmp_path: Path, spoil: Callable[[Path], object], kind: type[Exception], problem: str
) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    spoil(tmp_path / "traffic")
    recipe = REPLACE(tiny_recipe(), target=None, traffic=TrafficSettings(min_prompts=30))
    run = Run(
        folder=tmp_path / "run",
        config=Config(languages=("de", "fr"), train=recipe),
        given_target=tmp_path / "target",
        registry=str(tmp_path / "registry"),
    )
    with pytest.raises(kind, match=problem):
        Round(run, str(tmp_path), str(tmp_path / "traffic"))
    assert not (run.folder / "traffic").exists()


def test_a_line_that_is_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    write_traffic(tmp_path, ["eins", "zwei"])
    with (tmp_path / "a.jsonl").open("ab") as file:
        file.write(b'{"language": "d')
    assert [served.prompt for served in read_traffic(tmp_path)] == ["eins", "zwei"]


def test_a_snapshot_does_not_depend_on_files_and_their_order(tmp_path: Path) -> None:
    write_traffic(tmp_path / "one", ["b", "a", "B ", "a"])
    write_traffic(tmp_path / "two", ["a", "B "], name="z")
    write_traffic(tmp_path / "two", ["b"], name="a")
    taken = []
    for name in ("one", "two"):
        snapshot = Snapshot(tmp_path / f"taken-{name}")
        snapshot.take(tmp_path / name)
        taken.append({language: path.read_bytes() for language, path in snapshot.files.items()})
    assert taken[0] == taken[1] and taken[0]["de"].count(b"\n") == 2


def stats(*lengths: int) -> list[SpeculationStats]:
    """Texts of 12 tokens, each in so many rounds."""
    return [SpeculationStats(rounds=rounds, output_tokens=12) for rounds in lengths]


def test_texts_are_compared_prompt_by_prompt() -> None:
    found = compare(stats(12, 6, 4), stats(6, 4, 3))
    assert (found.prompts, found.before.value, found.after.value) == (3, round(36 / 22, 4), round(36 / 13, 4))
    assert found.difference.value == pytest.approx(36 / 13 - 36 / 22, abs=1e-4)
    assert 0 < found.difference.low < found.difference.value < found.difference.high, "better of every prompt"
    assert compare(stats(4, 4, 12), stats(4, 4, 12)).difference == Interval(value=0, low=0, high=0)


def improvement(traffic: tuple[float, float], ordinary: tuple[float, float]) -> Improvement:
    def compared(low: float, high: float) -> Compared:
        found = Interval(value=2, low=1, high=3)
        difference = Interval(value=(low + high) / 2, low=low, high=high)
        return Compared(prompts=9, before=found, after=found, difference=difference)

    return Improvement(traffic=compared(*traffic), ordinary=compared(*ordinary))


@pytest.mark.parametrize(
    ("traffic", "ordinary", "problem"),
    [
        ((0.01, 0.5), (-0.2, 0.0), None),
        ((0.01, 0.5), (0.1, 0.2), None),
        ((0.0, 0.5), (0.1, 0.2), "not certainly better on held-out traffic"),
        ((-0.1, 0.5), (0.1, 0.2), r"difference 0\.200 \[-0\.100, 0\.500\] \(--force"),
        ((0.3, 0.5), (-0.2, -0.01), "certainly worse on the ordinary test text"),
    ],
)
def test_the_gate_wants_a_certain_gain_and_no_certain_loss(
    traffic: tuple[float, float], ordinary: tuple[float, float], problem: str | None
) -> None:
    found = improvement(traffic, ordinary)
    if problem is None:
        check_improvement(found)
    else:
        with pytest.raises(NotWorthPublishing, match=problem):
            check_improvement(found)
