"""Our samplers timed against others' on one machine: ``python -m experiments.benchmarks.run [options]``.

Prints one table and writes NAME.csv with a NAME.json (machine, versions, git state, command) into a folder. The
comparisons: SyncDiffusion against a literal sampler that works as the released code does, MultiDiffusion against itself
through torch.compile and against diffusers' deprecated StableDiffusionPanoramaPipeline, and the approximations, profile
matching and shifted profile matching, against MultiDiffusion and our SyncDiffusion. A ratio is theirs over ours in
seconds; of what ought to be equal it is given only where the latents are. Exit status 0; 1 where they are not; 2 for a
mistake of the user's, told in one line.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from baselines import METHODS
from experiments.benchmarks.cases import CASES, Case, find_case
from experiments.benchmarks.compare import Bench, Comparison, OnRun, checked_differences, compare
from experiments.benchmarks.counts import counts
from experiments.benchmarks.picture import write_sweep_figure
from experiments.benchmarks.record import about, open_folder, table, write
from experiments.benchmarks.samplers import (
    APPROXIMATIONS,
    COMPILED,
    LITERAL,
    MULTIDIFFUSION,
    SYNCDIFFUSION,
    Job,
    Sampler,
    compiled,
    panoramas,
)
from experiments.benchmarks.sweeps import SWEEPS, sweep, sweep_labels
from experiments.benchmarks.timing import matmul_rate
from experiments.common.command_line import one_line_errors
from experiments.common.progress import Progress
from syncdiffusion.backbones.backbone import PRECISIONS
from syncdiffusion.backbones.loading import compile_unet, pick_device
from syncdiffusion.command_line import Parser
from syncdiffusion.errors import UsageError
from syncdiffusion.memory import keep_freed_memory

COMPARISONS = ("syncdiffusion", "compiled", "multidiffusion", *(each.name for each in APPROXIMATIONS))
PANORAMA = "diffusers panorama"


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="python -m experiments.benchmarks.run", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--case", default="mini", choices=list(CASES), help="model and canvas (default: mini)")
    parser.add_argument("--pairs", type=int, default=5, help="ours and theirs, this many times each (default: 5)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.add_argument("--precision", help=f"of the timing, one of {', '.join(PRECISIONS)} (default: the case's)")
    parser.add_argument("--only", choices=COMPARISONS, help="one of the comparisons (default: all)")
    parser.add_argument("--over", choices=list(SWEEPS), help="instead: ours alone over the values of a setting")
    parser.add_argument("--count", action="store_true", help="instead: FLOPs alone, which sd2 on a CPU allows, too")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder of the files")
    parser.add_argument("--name", help="of the files (default: the case, and what it is swept over)")
    parser.add_argument("--allow-cpu", action="store_true", help="sd2 on a CPU all the same")
    options = parser.parse_args(words)
    if options.pairs < 1:
        raise UsageError(f"--pairs {options.pairs}: use 1 or more")
    if options.count and options.over:
        raise UsageError(f"--count with --over {options.over}: each stands alone; give one of them")
    counted = "_counts" if options.count else ""
    options.name = options.name or "_over_".join(filter(None, (options.case, options.over))) + counted
    if Path(options.name).name != options.name:
        raise UsageError(f"--name {options.name}: use a file name without folders or ending; --out chooses the folder")
    return options


def chosen(options: argparse.Namespace, comparison: str) -> bool:
    """Whether a comparison is to be made."""
    return options.only in (None, comparison)


def on_run_of(labels: Sequence[str]) -> OnRun:
    """What is to be told after every run, so that stderr shows how far it is; `labels` of all that will run."""
    progress = Progress(labels, {}, every=2.0, title="benchmark", noun="runs")

    def on_run(what: str, seconds: float) -> None:
        progress.finish(what.partition(",")[0], what, seconds)
        if progress.done == progress.total:
            progress.close()

    return on_run


def labels_of(options: argparse.Namespace, case: Case, sizes: int) -> list[str]:
    """Everything that the comparisons will run; `sizes` view batch sizes are tried."""
    labels = []
    if chosen(options, "syncdiffusion"):
        labels += ["check syncdiffusion", "check literal"]
        labels += _compared("syncdiffusion", "literal", options.pairs) * len(case.timed)
    if chosen(options, "compiled"):
        labels += ["check multidiffusion", f"check {COMPILED}"]
        labels += _compared("multidiffusion", COMPILED, options.pairs)
    if chosen(options, "multidiffusion"):
        labels += ["check multidiffusion", *[f"check {PANORAMA}"] * sizes]
        labels += [f"warm-up {PANORAMA}", *[f"scan {PANORAMA}"] * sizes]
        labels += _compared("multidiffusion", PANORAMA, options.pairs) * 2
    for each in APPROXIMATIONS:
        if chosen(options, each.name):
            labels += _compared(each.name, "multidiffusion", options.pairs)
            labels += _compared(each.name, "syncdiffusion", options.pairs)
    return labels


def _compared(ours: str, theirs: str, pairs: int) -> list[str]:
    kinds = ["warm-up", *["timed"] * pairs, "count"]
    return [f"{kind} {name}" for kind in kinds for name in (ours, theirs)]


def check(options: argparse.Namespace, bench: Bench) -> dict[str, float]:
    """Largest difference of each other sampler's latents from ours in float64, printed."""
    found: dict[str, float] = {}
    if chosen(options, "syncdiffusion"):
        found |= checked_differences(bench, SYNCDIFFUSION, [LITERAL])
    if chosen(options, "compiled"):
        found |= checked_differences(bench, MULTIDIFFUSION, [compiled_of(bench)])
    if chosen(options, "multidiffusion"):
        # The views that the timing will have at once; where the check has fewer, they go together.
        found |= checked_differences(bench, MULTIDIFFUSION, panoramas(bench.job(bench.case.timed[0])))
    tolerance = bench.case.check_tolerance
    for name, difference in found.items():
        print(f"float64 check, {name}: latents differ by {difference:.1e} (tolerance {tolerance:.0e})")
    return found


def compiled_of(bench: Bench) -> Sampler:
    """Our MultiDiffusion through torch.compile, on a model of its own: the bench's stays as it is."""
    backbone = bench.backbone
    return compiled(compile_unet(bench.case.load(str(backbone.device), backbone.precision)))


def comparisons(options: argparse.Namespace, bench: Bench) -> list[Comparison]:
    """What is to be timed. The best view_batch_size is found by one run of each."""
    case, all_of_them = bench.case, []
    if chosen(options, "syncdiffusion"):
        for settings in case.timed:
            name = f"syncdiffusion, first_n {settings.first_n}"
            all_of_them.append(Comparison(name, SYNCDIFFUSION, LITERAL, settings, case.sync_tolerance))
    if chosen(options, "compiled"):
        settings, other = case.timed[0], compiled_of(bench)
        all_of_them.append(Comparison(COMPILED, MULTIDIFFUSION, other, settings, case.multi_tolerance))
    if chosen(options, "multidiffusion"):
        settings = case.timed[0]
        others = panoramas(bench.job(settings))
        bench.warm_up(others[0], settings)
        best = min(others, key=lambda other: bench.run(other, settings, "scan").seconds)
        for name, other in (("multidiffusion, one view", others[0]), ("multidiffusion, best view batch", best)):
            all_of_them.append(Comparison(name, MULTIDIFFUSION, other, settings, case.multi_tolerance))
    for each in APPROXIMATIONS:
        for other in (MULTIDIFFUSION, SYNCDIFFUSION) if chosen(options, each.name) else ():
            name = f"{METHODS[each.name].title.lower()}, {other.name}"
            all_of_them.append(Comparison(name, each, other, case.timed[0], approximate=True))
    return all_of_them


def measure(options: argparse.Namespace, case: Case, device: str) -> tuple[list[dict[str, Any]], float]:
    """All rows of the table, and the machine's rate in FLOP/s."""
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32, in convolutions as in matrix products
    differences: dict[str, float] = {}
    if options.over:
        on_run = on_run_of(sweep_labels(case.timed[0], options.over, options.pairs))
    else:
        on_run, differences = checked(options, case, device)
    backbone = case.load(device, case.precision)
    rate = matmul_rate(backbone.device, PRECISIONS[case.precision])
    bench = Bench(case, backbone, options.pairs, rate, on_run)
    if options.over:
        return list(sweep(bench, options.over)), rate
    each = (compare(bench, one, differences.get(one.theirs.name)) for one in comparisons(options, bench))
    return [row for two in each for row in two], rate


def checked(options: argparse.Namespace, case: Case, device: str) -> tuple[OnRun, dict[str, float]]:
    """`check` on the float64 model, which is gone afterwards, and the progress that has begun with it."""
    exact = case.load(device, "float64")
    sizes = len(panoramas(Job(exact, case.prompt, case.seed, case.timed[0])))
    on_run = on_run_of(labels_of(options, case, sizes))
    return on_run, check(options, Bench(case, exact, 1, 1.0, on_run))


def verdict(rows: Sequence[dict[str, Any]]) -> int:
    """Exit status 1 and one line on stderr where latents were not equal, else 0."""
    void = {row["comparison"]: row for row in rows if row.get("equal") is False}
    if not void:
        return 0
    said = [
        f"{name}: latents differ by {row['difference']:.1e} in {row['difference_from']} "
        f"(tolerance {row['tolerance']:.0e}; timed {row['timed_difference']:.1e}, check {row['check_difference']:.1e})"
        for name, row in void.items()
    ]
    print(f"void: {'; '.join(said)}", file=sys.stderr)
    return 1


@one_line_errors()
def main(words: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if words is None else words)
    options = parse(words)
    device = pick_device(options.device)
    case = find_case(options.case, device.type, options.precision, options.allow_cpu or options.count)
    folder = open_folder(options.out)
    keep_freed_memory()
    rows, rate = (counts(case), None) if options.count else measure(options, case, str(device))
    print(table(rows))  # before anything is written: a disk that is full by now takes no hours of work along
    facts = about(case, device, rate, words)
    path = write(folder, options.name, rows, facts)
    if options.over:
        write_sweep_figure(folder, options.name, rows, options.over, facts["device"])
    print(f"written: {path}")
    return verdict(rows)


if __name__ == "__main__":
    sys.exit(main())
