"""`polydraft bench`: a table on standard error, JSON as the last line of standard output."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cluster.options import data_and_run_of, run_of, run_options

if TYPE_CHECKING:
    from cluster.run import Run


@click.group()
def bench() -> None:
    """Benchmarks: a table on standard error, JSON as the last line of standard output."""


@bench.command()
@click.option("--rounds", default=2000, help="Rounds measured on each path.")
def roundtrip(rounds: int) -> None:
    """What a draft-verify round costs to coordinate: our streams beside Serve handle calls."""
    from cluster.bench.roundtrip import main

    main(rounds)


@bench.command()
@click.option("--emulate", is_flag=True, help="With emulated engines, the only ones that this benchmark has.")
@click.option("--verify-ms", default=25.0, show_default=True, help="A step of the verifier.")
@click.option("--verify-token-ms", default=0.0, show_default=True, help="And for each token of all texts in it.")
@click.option("--draft-ms", default=1.5, show_default=True, help="A step of the drafter: a token for each text in it.")
@click.option("--acceptance", default=0.8, show_default=True, help="Of a drafted token, those before it accepted.")
@click.option("--runner-up", default=0.5, show_default=True, help="Of its second guess where the first is wrong.")
@click.option("--streams", default="1,32", show_default=True, help="Texts at the same time.")
@click.option("--seconds", default=20.0, show_default=True, help="Of each measurement.")
@click.option(
    "--cases",
    default=("efficiency", "never_accepted", "router"),
    show_default=True,
    multiple=True,
    type=click.Choice(["efficiency", "never_accepted", "router"]),
    help="What to measure; may be given several times.",
)
def pipeline(emulate: bool, streams: str, seconds: float, cases: tuple[str, ...], **stated: float) -> None:
    """What router, streams and controller make of stated times of verifier and drafter."""
    if not emulate:
        raise click.UsageError("--emulate is needed: real engines are measured by `bench load`")
    from cluster.bench.emulated import emulate as make
    from cluster.bench.pipeline import main

    try:
        emulated = make(**stated)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    main(emulated, _numbers(streams, int), seconds, cases)


@bench.command()
@click.option("--seconds", default=7.0, show_default=True, help="Of each measurement.")
@click.option("--warm-up", "warm_up_s", default=5.0, show_default=True, help="Before each.")
@click.option("--mix", "mixes", multiple=True, help="Only the mix of this name; may be given several times.")
def capacity(seconds: float, warm_up_s: float, mixes: tuple[str, ...]) -> None:
    """What `polydraft plan` predicts for six mixes of texts, beside what emulated engines make of them."""
    from cluster.bench.capacity import main
    from cluster.bench.mixes import MIXES

    for mix in mixes:
        _check("mix", mix, MIXES)
    main(seconds, warm_up_s, list(mixes or MIXES))


@bench.command()
@click.option(
    "--target", default="llama-160m", show_default=True, help="Its shape: llama-68m, llama-160m or vicuna-7b."
)
@click.option("--drafter", default="llama-68m", show_default=True, help="Likewise.")
@click.option("--device", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda"]))
@click.option("--dtype", default="float32", show_default=True, help="Of the weights; bfloat16 on a GPU.")
@click.option("--threads", default=1, show_default=True, help="Of PyTorch.")
@click.option("--turns", default=3, show_default=True, help="Of all ways.")
@click.option("--way", "ways", multiple=True, help="plain, prepacked, int8 or compiled; all that the device has.")
def steps(ways: tuple[str, ...], **options: Any) -> None:
    """What a token, a verification and a draft cost on this machine's CPU or GPU, with random weights."""
    from cluster.bench.steps import SHAPES, main

    for option in ("target", "drafter"):
        _check(option, options[option], SHAPES)
    main(**options, ways=ways)


@bench.command()
@run_options
@click.option("--prompts", type=int, help="Test sentences a language; as configured by default.")
def acceptance(prompts: int | None, **options: Any) -> None:
    """Tokens per verification of each language's drafter on test sentences."""
    from cluster.bench.acceptance import main

    main(_trained(**options)[0], prompts)


@bench.command()
@run_options
@click.option("--languages", default="all", show_default=True, help="Codes, with commas between.")
@click.option("--concurrency", default="1,2,4,8,16,32", show_default=True, help="Streams at the same time.")
@click.option("--repetitions", default=3, show_default=True, help="Blocks measured with and without speculation.")
@click.option("--temperatures", default="0,1", show_default=True, help="In turns.")
def load(languages: str, concurrency: str, repetitions: int, temperatures: str, **options: Any) -> None:
    """Throughput and latency over HTTP at several loads, with and without speculation in turns."""
    from cluster.bench.load import main

    run, data = _trained(**options)
    main(run, data, languages, _numbers(concurrency, int), repetitions, _numbers(temperatures, float))


@bench.command()
@run_options
@click.option("--languages", default="all", show_default=True, help="Codes, with commas between.")
@click.option("--inflate", default=100, show_default=True, help="Millions of parameters of the target then.")
@click.option("--questions", default=4, show_default=True, help="Of each language.")
@click.option("--streams", default=8, show_default=True, help="At the same time, where there are several.")
@click.option("--repetitions", default=4, show_default=True, help="Blocks of several streams.")
def decode(languages: str, inflate: int, questions: int, streams: int, repetitions: int, **options: Any) -> None:
    """Our server beside transformers' plain and assisted generation, on a target made dear; its text stays the same."""
    from cluster.bench.decode import main

    main(*_trained(**options), languages, inflate, questions, streams, repetitions)


@bench.command()
@run_options
@click.option("--languages", default="all", show_default=True, help="Codes, with commas between.")
@click.option("--inflate", default=100, show_default=True, help="Millions of parameters of the target; 0: as it is.")
@click.option("--questions", default=10, show_default=True, help="Of each language.")
def quantization(languages: str, inflate: int, questions: int, **options: Any) -> None:
    """What a target in 8 bits wins in time and changes in its texts."""
    from cluster.bench.quantization import main

    data, run = data_and_run_of(options)
    main(run, data, languages, questions, inflate)


@bench.command()
@run_options
@click.option("--kills", default=10, show_default=True, help="Replicas killed, one after another.")
def faults(kills: int, **options: Any) -> None:
    """What clients notice of drafters and verifiers that are killed while they write: nothing but a pause."""
    from cluster.bench.faults import main

    main(*_trained(**options), kills)


@bench.command()
@run_options
def nodes(**options: Any) -> None:
    """What clients notice of a whole machine that dies, of three, and of one that is added: nothing but a pause."""
    from cluster.bench.nodes import main

    main(*_trained(**options))


@bench.command()
@run_options
@click.option("--languages", default="all", show_default=True, help="Codes, with commas between.")
@click.option("--seconds", default=60.0, show_default=True, help="The longest that a language is waited for.")
@click.option("--png", default="autoscale.png", show_default=True, help="The figure.", type=click.Path(path_type=Path))
def autoscale(languages: str, seconds: float, png: Path, **options: Any) -> None:
    """Replicas of each language's drafter while the load moves from language to language."""
    from cluster.bench.autoscale import main

    main(*_trained(**options), languages, seconds, png)


@bench.command()
@click.option("--language", default="de", show_default=True, help="One that the phrasebook has.")
@click.option("--run", "run_folder", default="runs/improvement", show_default=True, help="Folder of the results.")
@click.option("--target", help="Folder of a target that knows the phrasebook, such as quickstart's; else one is made.")
def improvement(language: str, run_folder: str, target: str | None) -> None:
    """A drafter that learns from what it is asked: capture, train, judge, promote; its acceptance before and after."""
    from cluster.bench.improvement import main

    main(run_folder, language, target)


@bench.command()
@run_options
@click.option("--pairs", default=5000, show_default=True, help="Sentence pairs trained on.")
@click.option("--row-length", default=256, show_default=True, help="Tokens of a row.")
@click.option("--blocks", default=6, show_default=True, help="Blocks measured with either loop, in turns.")
@click.option("--steps", default=20, show_default=True, help="Optimizer steps of a block.")
@click.option("--positions", default=4096, show_default=True, help="Of which the loss's memory is measured.")
@click.option("--vocabulary", default=32_000, show_default=True, help="Token ids, for the loss's memory.")
def training(**options: Any) -> None:
    """Tokens per second of the training loop beside a plain PyTorch loop; padding; memory of the loss."""
    from cluster.bench.training import main

    names = ("data", "pairs", "row_length", "blocks", "steps", "positions", "vocabulary")
    measured = {name: options.pop(name) for name in names}
    main(run_of(**options), **measured)


def _trained(data: str, **options: Any) -> tuple[Run, str]:
    """The run, the embedded default trained first if need be, and the folder of its sentences."""
    from cluster.quickstart import CONFIG, train_default

    run = run_of(**options)
    if options["config_name"] == CONFIG and not options["target"]:
        data = data or train_default(run)
    run.check_trained()
    return run, data


def _check(option: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise click.UsageError(f"--{option} {value}: there are {', '.join(known)}")


def _numbers(text: str, kind: type) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"expected numbers with commas between, not `{text}`") from None
