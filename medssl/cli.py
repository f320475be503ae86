"""The command line. One short function a command; whatever is slow to import is imported inside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from medssl import __version__
from medssl.errors import LaunchError, UserError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Which initialisation should we train from, ImageNet, in-domain, or both, and how sure are we?",
)
config_app = typer.Typer(no_args_is_help=True, help="About study files.")
track_app = typer.Typer(no_args_is_help=True, help="About the tracker.")
splits_app = typer.Typer(no_args_is_help=True, help="About splits.")
app.add_typer(config_app, name="config")
app.add_typer(splits_app, name="splits")
app.add_typer(track_app, name="track")

Config = Annotated[Path, typer.Option("--config", "-c", help="The study file.", show_default=False)]
Sets = Annotated[list[str] | None, typer.Option("--set", help="Override a key: --set a.b=value. May be repeated.")]
Arms = Annotated[list[str] | None, typer.Option("--arm", help="Only this arm. May be repeated.")]
Force = Annotated[
    bool, typer.Option("--force", help="Go on from a checkpoint although settings, data or medssl have changed since.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start this stage over.")]


def _open(config: Path, sets: list[str] | None, *, alone: bool = True):
    from medssl.training.launch import launch_of

    if alone and (size := launch_of().size) > 1:
        raise LaunchError(
            f"launch: {size} processes were started, and only `medssl pretrain` shares its work over processes; start this command "
            "once, without torchrun or srun"
        )
    from medssl.stages.workspace import open_workspace

    return open_workspace(config, sets)


@app.command()
def index(
    config: Config,
    sets: Sets = None,
    fresh: Fresh = False,
    report: Annotated[
        bool, typer.Option("--report", help="Write index.html: what the archive holds and what is wrong with it.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes that decode; one a CPU core if left out.")
    ] = None,
    scheduler: Annotated[str | None, typer.Option("--scheduler", help="Read on a dask cluster: tls://host:8786.")] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", help="Read part k of n, as 3/16; the last of the n processes makes the archive.")
    ] = None,
) -> None:
    """Raw files to manifest, rejects, splits and pixel store."""
    from medssl.stages.index import index as stage
    from medssl.stages.index import index_part
    from medssl.stages.sources import ExecutionHow, part_of

    work, how = _open(config, sets), ExecutionHow(workers, scheduler, part_of(shard, fresh=fresh))
    archive = index_part(work, how) if how.shard else stage(work, fresh=fresh, look=True, how=how)
    if report and archive is not None:
        from medssl.stages.archive_report import archive_report

        archive_report(work, archive)


@app.command()
def pretrain(config: Config, sets: Sets = None, arm: Arms = None, fresh: Fresh = False, force: Force = False) -> None:
    """Self-supervised training on the unlabelled archive, for every arm that has a method. Several GPUs: torchrun or srun."""
    work = _open(config, sets, alone=False)
    from medssl.stages.pretrain import pretrain as stage
    from medssl.training.distributed import joined

    with joined() as world:
        stage(work, arms=arm, fresh=fresh, force=force, world=world)


@app.command()
def finetune(
    config: Config,
    sets: Sets = None,
    arm: Arms = None,
    fresh: Fresh = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes that fit cells; as many as pay off if left out.")
    ] = None,
    scheduler: Annotated[str | None, typer.Option("--scheduler", help="Fit cells on a dask cluster: tls://host:8786.")] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", help="Fit part k of n of the cells, as 3/16, for a SLURM array.")
    ] = None,
) -> None:
    """Every arm on small labelled sets; reads no label outside of the budgets."""
    from medssl.grid.how import ExecutionHow, shard_of

    how = ExecutionHow(workers, scheduler, shard_of(shard))
    work = _open(config, sets)
    from medssl.stages.finetune import finetune as stage

    stage(work, arms=arm, fresh=fresh, how=how)


@app.command()
def evaluate(config: Config, sets: Sets = None, arm: Arms = None, fresh: Fresh = False) -> None:
    """Score the test patients, once a cell; the only command that reads their labels."""
    work = _open(config, sets)
    from medssl.stages.evaluate import evaluate as stage

    stage(work, arms=arm, fresh=fresh)


@app.command()
def compare(config: Config, sets: Sets = None, arm: Arms = None, fresh: Fresh = False) -> None:
    """The arms side by side, with intervals: a table, a report, the tracker."""
    work = _open(config, sets)
    from medssl.stages.compare import compare as stage

    stage(work, arms=arm, fresh=fresh)


@app.command()
def run(
    pipeline: Annotated[Path, typer.Argument(help="The pipeline file.", show_default=False)],
    config: Config,
    sets: Sets = None,
    fresh: Fresh = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes that read files, and that fit cells; see those commands.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", help="Read files and fit cells on a dask cluster: tls://host:8786.")
    ] = None,
) -> None:
    """Several stages as one thing, such as pipelines/imagenet_vs_in_domain.yaml."""
    work = _open(config, sets)
    from medssl.grid.how import ExecutionHow
    from medssl.stages.pipeline import run_pipeline

    run_pipeline(work, pipeline, fresh=fresh, how=ExecutionHow(workers, scheduler))


@app.command()
def embed(
    config: Config,
    encoder: Annotated[str, typer.Option("--encoder", help="A folder with encoder.json, or runs:/RUN_ID/encoder.")],
    sets: Sets = None,
    data: Annotated[str | None, typer.Option("--data", help="A data set of the study; the task's if left out.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The Parquet file to write.")] = None,
) -> None:
    """The features of a data set, as Parquet."""
    work = _open(config, sets)
    from medssl.stages.embed import embed as stage

    stage(work, encoder, data=data, out=out)


@app.command()
def views(
    config: Config,
    out: Annotated[Path, typer.Option("--out", help="The PNG file to write.")] = Path("views.png"),
    sets: Sets = None,
    images: Annotated[int, typer.Option("--images", min=1, max=64, help="Images, a row each.")] = 6,
    count: Annotated[int, typer.Option("--views", min=1, max=16, help="Views of each image; of pairs: epochs.")] = 5,
    of: Annotated[str, typer.Option("--of", help="Views of pretrain or finetune, or pairs: related images.")] = "pretrain",
) -> None:
    """A contact sheet of images, views of them or related images, and what was drawn for each."""
    work = _open(config, sets)
    from medssl.stages.views import views as stage

    stage(work, out, images=images, count=count, of=of)


@app.command()
def diagnose(
    config: Config,
    sets: Sets = None,
    steps: Annotated[int, typer.Option("--steps", min=2, help="Steps that each variant is trained for.")] = 200,
    arm: Annotated[str | None, typer.Option("--arm", help="Whose weights to start from; the first pretrained arm's.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="An SVG file to write besides.")] = None,
    fresh: Fresh = False,
) -> None:
    """The papers' collapse experiments on your images: can a good run and a collapsed one be told apart here?"""
    work = _open(config, sets)
    from medssl.stages.diagnose import diagnose as stage

    stage(work, steps=steps, arm=arm, out=out, fresh=fresh)


@app.command()
def sweep(config: Config, sets: Sets = None, fresh: Fresh = False) -> None:
    """Learning rate, weight decay and strength of the views by RankMe, without labels; the same budget for every method."""
    work = _open(config, sets)
    from medssl.stages.sweep import sweep as stage

    stage(work, fresh=fresh)


@app.command()
def locate(
    key: Annotated[str, typer.Argument(help="A key of an image, patient, study or series.")], config: Config, sets: Sets = None
) -> None:
    """The files behind a key. Prints identifiers; works only on the machine that indexed them."""
    from medssl.data.private import locate as find

    for _, row in find(_open(config, sets).private, key).iterrows():
        typer.echo(f"{row['row_key']}  {row['source']}  {row['path']}" + (f"  frame {row['frame']}" if row["frame"] else ""))


@app.command()
def reproduce(
    run_id: Annotated[
        str,
        typer.Argument(help="An MLflow run id, or a run of the work folder such as pretrain-in_domain/001.", show_default=False),
    ],
    config: Config,
) -> None:
    """The command that repeats a run, and whether data, weights and versions are still the same; exit code 2 where not."""
    from medssl.stages.reproduce import reproduce as stage

    if not stage(config, run_id):
        raise typer.Exit(2)


@track_app.command("sync")
def track_sync(config: Config, sets: Sets = None) -> None:
    """Send to MLflow what it has not got yet."""
    from medssl.stages.sync import sync

    sync(_open(config, sets))


@splits_app.command("audit")
def splits_audit(
    config: Config,
    sets: Sets = None,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", help="Audit a split of your own: a CSV with the columns split and row_key, patient or file."),
    ] = None,
) -> None:
    """What is in each part, and whether train, validation, test and pretraining share a patient, a study or an image."""
    from medssl.stages.splits import audit_splits

    audit_splits(_open(config, sets), csv)


@config_app.command("schema")
def config_schema() -> None:
    """The JSON Schema of study files, for editors."""
    from medssl.stages.schema import study_schema

    typer.echo(json.dumps(study_schema(), indent=2))


@config_app.command("check")
def config_check(config: Config, sets: Sets = None) -> None:
    """Check a study file and its cards without doing anything."""
    from medssl.stages.workspace import check_components, check_study

    study = check_study(config, sets)
    check_components(study)
    typer.echo(f"{config}: is a study file of version {study.version}, arms: {', '.join(study.arms)}")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"medssl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. Exit codes: 0 done, 2 something to mend, 128 + N stopped by signal N."""
    try:
        app()
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except Exception as error:
        # A stop is no error; its class lives beside torch, so it is known by its attribute.
        signum = getattr(error, "signum", None)
        if signum is None:
            raise
        sys.stderr.write(f"{error}\n")
        sys.exit(128 + signum)


if __name__ == "__main__":
    main()
