"""Any number of processes on one run folder: killed at random, parted into shards, one of them scoring."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from experiments.common.progress import Stand
from experiments.panoramas import claims
from experiments.panoramas.claims import Claims
from experiments.panoramas.index import read_index
from experiments.panoramas.records import made
from experiments.panoramas.store import unit_key
from experiments.plan.plan import Plan
from experiments.stages import generate
from experiments.stages.generate import model_facts, share
from experiments.stages.score_files import keep_panoramas
from experiments.stages.sequence import finish, run, versions_of_scores
from tests.experiments.composing import compose_plan
from tests.experiments.panoramas.test_claims import foreign
from tests.experiments.worker import note, read_diary, start_worker

SLOW = ["steps=12", "seeds.count=3", "stage=generate"]  # 14 pictures of some tenths of a second
WORKERS, KILLS, LIMIT = 4, 8, 900  # processes at once, how many are killed, seconds on the slowest machine


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("panoramas/**/*.png")}


def leftovers(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob("*") if ".tmp" in path.name or ".lock" in path.name]


class Publications:
    """Watches the records of a run folder: whether one that was there ever changed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.first, self.changed, self.ended = folder, {}, [], threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def watch(self) -> None:
        while not self.ended.wait(0.05):  # seconds; making a picture takes longer
            for path in self.folder.rglob("panoramas/**/*.json"):
                version = path.stat().st_ino, path.stat().st_mtime_ns
                if self.first.setdefault(path, version) != version:
                    self.changed.append(path)

    def stop(self) -> None:
        self.ended.set()
        self.thread.join()


def kill_at_random(
    workers: list[multiprocessing.Process], start: Callable[[], multiprocessing.Process], diary: Path, pace: float
) -> None:
    """Up to KILLS times kill one that is at work and start another; `pace`: seconds that a picture takes."""
    chance, begun = random.Random(20), 0
    for _ in range(KILLS):
        while True:
            lines = [process for what, process, _ in read_diary(diary) if what == "begins"]
            busy = [worker for worker in workers if worker.pid in lines and worker.is_alive()]
            if len(lines) > begun and busy:
                break
            if not any(worker.is_alive() for worker in workers):
                return
            time.sleep(0.02)
        begun = len(lines)
        time.sleep(chance.uniform(0.0, pace))
        victim = busy[chance.randrange(len(busy))]
        victim.kill()
        victim.join()
        note(diary, "dies", victim.pid, None)
        workers[workers.index(victim)] = start()


def test_killed_workers_leave_the_files_of_a_quiet_run(tiny_settings, tmp_path):
    """Four at a time, eight of them killed: the same bytes, each picture made once, nothing else left behind."""
    deadline, diary = time.monotonic() + LIMIT, tmp_path / "diary"
    quiet = start_worker([*tiny_settings, *SLOW, f"run_dir={tmp_path / 'quiet'}"], tmp_path / "quiet-diary")
    quiet.join()
    assert quiet.exitcode == 0
    records = [json.loads(path.read_text()) for path in (tmp_path / "quiet" / "panoramas").rglob("*.json")]
    pace = sum(record["seconds"] for record in records) / len(records)

    folders = [f"run_dir={tmp_path / 'run'}", f"shared_dir={tmp_path / 'shared'}"]
    settings = [*tiny_settings, *SLOW, *folders]
    watched = Publications(tmp_path / "run")
    workers = [start_worker(settings, diary) for _ in range(WORKERS)]
    try:
        kill_at_random(workers, lambda: start_worker(settings, diary), diary, pace)
        for worker in workers:
            worker.join(max(deadline - time.monotonic(), 0))
            assert worker.exitcode == 0, (tmp_path / f"diary.{worker.pid}").read_text()
    finally:
        watched.stop()
        for worker in workers:
            worker.kill()

    plan = compose_plan(settings)
    assert pictures(plan.folder) == pictures(tmp_path / "quiet") and len(pictures(plan.folder)) == 14
    assert leftovers(plan.folder, plan.shared) == []
    assert watched.changed == []
    check_diary(read_diary(diary), plan)


def check_diary(diary: list[list], plan: Plan) -> None:
    """Each picture was begun anew only after whoever had begun it was dead, and its record is the last one's."""
    model = model_facts(plan.backbone)
    dead, begun, interrupted = set(), {}, 0
    for what, process, key in diary:
        if what == "dies":
            dead.add(process)
        elif what == "begins":
            assert key not in begun or begun[key] in dead
            interrupted += key in begun
            begun[key] = process
        else:
            assert what == "has made" and begun[key] == process
    assert interrupted >= 2  # the kills did hit work
    for unit in (*plan.units, *plan.references):
        record = made(unit.png(plan.folder), unit_key(unit, model))
        assert record["worker"]["process"] == begun[record["key"]]
        assert (record["label"], record["prompt"], record["seed"]) == (unit.label, unit.prompt, unit.seed)


def test_sigterm_is_answered_like_ctrl_c(tiny_settings, tmp_path):
    settings = [*tiny_settings, *SLOW, f"run_dir={tmp_path / 'run'}", f"shared_dir={tmp_path / 'shared'}"]
    worker, diary = start_worker(settings, tmp_path / "diary"), tmp_path / "diary"
    deadline = time.monotonic() + LIMIT
    while sum(what == "begins" for what, *_ in read_diary(diary)) < 3:
        assert worker.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(worker.pid, signal.SIGTERM)
    worker.join()
    said = (tmp_path / f"diary.{worker.pid}").read_text()
    assert worker.exitcode == 143, said
    assert said.splitlines()[-1] == "terminated: what is done stays; the same command goes on from here"
    assert "Traceback" not in said and said.count("terminated") == 1
    assert leftovers(tmp_path / "run", tmp_path / "shared") == []
    assert len(pictures(tmp_path / "run")) == sum(what == "has made" for what, *_ in read_diary(diary))


def test_shards_are_disjoint_and_make_everything(compose):
    parts = [share(compose(f"shard={i}/3"), model_facts(compose().backbone)) for i in (1, 2, 3)]
    keys = [picture.key for part in parts for group in part for picture in group]
    assert [len(part) for part in parts] == [4, 3, 3] and len(set(keys)) == 10
    for i, part in enumerate(parts, start=1):
        assert generate.generate(compose(f"shard={i}/3")) == len(part)
    assert read_index(compose()).missing == () and generate.generate(compose()) == 0


def test_the_last_shard_scores(compose, known_scores, capsys):
    run(compose("shard=1/2", "tracking=disabled"))
    out, err = capsys.readouterr()
    assert err.splitlines()[-1] == "5 panoramas belong to other shards; the last to finish scores, or stage=score"
    assert out == f"run folder: {compose().folder}\n" and not (compose().folder / "scores.csv").exists()
    run(compose("shard=2/2", "tracking=disabled"))
    assert "other shards" not in capsys.readouterr().err and (compose().folder / "table.md").is_file()


def test_one_process_scores_and_a_later_one_scores_again(compose, known_scores, capsys):
    plan = compose("tracking=disabled")
    before = versions_of_scores(plan.folder)
    run(plan)
    first = versions_of_scores(plan.folder)
    capsys.readouterr()
    finish(plan, before)  # of a process that began together with the first, and is through later
    assert versions_of_scores(plan.folder) == first
    assert capsys.readouterr().err == "another process has scored these panoramas; nothing is left to do here\n"
    run(plan)  # the same command given again
    assert not first.items() & versions_of_scores(plan.folder).items()


def test_scores_of_fewer_panoramas_are_not_up_to_date(compose, known_scores):
    plan = compose("tracking=disabled")
    before = versions_of_scores(plan.folder)
    run(compose("tracking=disabled", "seeds.count=1"))
    few = versions_of_scores(plan.folder)
    generate.generate(plan)
    finish(plan, before)
    assert not few.items() & versions_of_scores(plan.folder).items()


def test_whoever_has_more_panoramas_waits_for_one_that_scores_fewer(compose, known_scores, monkeypatch):
    monkeypatch.setattr(claims, "LEASE", 1.0)
    fewer, plan = compose("tracking=disabled", "seeds.count=1"), compose("tracking=disabled")
    generate.generate(fewer)
    with ThreadPoolExecutor() as pool:
        with Claims(plan.folder).held("score") as claim:
            assert claim is not None
            keep_panoramas(plan.folder, read_index(fewer))  # as the one that scores has done
            waiting = pool.submit(run, plan)
            time.sleep(3)  # several touches of the claim: its holder is seen to be alive
            assert not waiting.done()
        waiting.result(timeout=60)
    assert len(pd.read_csv(plan.folder / "panoramas.csv")) == len(plan.units) and (plan.folder / "scores.csv").exists()


def test_while_another_scores_the_others_end(compose, known_scores, monkeypatch, capsys):
    monkeypatch.setattr(claims, "LEASE", 1.0)
    plan = compose("tracking=disabled")
    generate.generate(plan)
    keep_panoramas(plan.folder, read_index(plan))
    with Claims(plan.folder).held("score") as claim:
        assert claim is not None
        run(plan)
        err = capsys.readouterr().err
        assert err.splitlines()[-1].startswith(f"process {os.getpid()} on ")
        assert err.splitlines()[-1].endswith(" scores this run folder; nothing is left to do here")
        assert not (plan.folder / "scores.csv").exists()


def test_scoring_asked_for_waits_its_turn(compose, known_scores):
    plan = compose("stage=score")
    generate.generate(plan)
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with Claims(plan.folder).held("score"):
            held.set()
            free.wait()
            seen.append((plan.folder / "scores.csv").exists())

    seen: list[bool] = []
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    threading.Timer(0.5, free.set).start()
    run(plan)
    thread.join()
    assert seen == [False] and (plan.folder / "scores.csv").is_file() and leftovers(plan.folder) == []


def test_what_others_make_is_waited_for_and_made_where_they_die(compose, monkeypatch, capsys):
    # many times what making one panorama takes here, so that the claims are still held at the second look
    lease = 3.0
    monkeypatch.setattr(claims, "LEASE", lease)
    plan = compose("prompts.texts=[hills]", "reference.count=0")
    (plan.shared / "claims").mkdir(parents=True)
    for unit in plan.units[1:3]:
        foreign(plan.shared / "claims", lease, unit_key(unit, model_facts(plan.backbone)))
    assert generate.generate(plan) == 4
    assert capsys.readouterr().err.count("waiting for 2 panoramas that other processes are making\n") == 1
    assert read_index(plan).missing == () and leftovers(plan.folder, plan.shared) == []


def test_what_others_have_made_meanwhile_no_longer_counts_as_left(compose):
    plan = compose("prompts.texts=[hills]", "reference.count=0")
    key = unit_key(plan.units[0], model_facts(plan.backbone))
    generate.generate(plan)
    made_there = {path: path.read_bytes() for path in plan.shared.rglob(f"{key}.*")}
    assert {path.suffix for path in made_there} == {".png", ".json"}
    shutil.rmtree(plan.folder)
    for path in plan.shared.rglob("panoramas/*/*"):
        path.unlink()
    (plan.shared / "claims").mkdir(exist_ok=True)
    claim = foreign(plan.shared / "claims", claims.LEASE, key)
    stands = []

    def listener(stand: Stand) -> None:
        if stand.seconds is not None:
            stands.append((stand.done, stand.total))
            if stand.done == 1:  # the other process is done, too
                for path, content in made_there.items():
                    path.write_bytes(content)
                claim.unlink()

    assert generate.generate(plan, listener=listener) == 3
    assert stands == [(1, 4), (2, 3), (3, 3)]


def test_what_was_made_under_a_lost_claim_is_not_published(compose, monkeypatch):
    plan = compose("prompts.texts=[hills]", "reference.count=0", "seeds.count=1")
    answers, published = iter([True, False, False]), []
    save = generate.save_panorama
    monkeypatch.setattr(generate, "lost", lambda claim: next(answers))
    monkeypatch.setattr(generate, "save_panorama", lambda *words: published.append(words[1].label) or save(*words))
    assert generate.generate(plan) == 2  # made three times, published twice
    assert published == ["blended_latent", "multidiffusion"]


def test_workers_that_make_several_at_once_and_are_killed_leave_the_same_bytes(tiny_settings, tmp_path):
    """Two of them, the one at work killed in the middle of a group, and a third that goes on."""
    deadline = time.monotonic() + LIMIT
    common, diary = [*tiny_settings, *SLOW, "panoramas_at_once=3"], tmp_path / "diary"
    quiet = start_worker([*common, f"run_dir={tmp_path / 'quiet'}"], tmp_path / "quiet-diary")
    settings = [*common, f"run_dir={tmp_path / 'run'}", f"shared_dir={tmp_path / 'shared'}"]
    workers = [start_worker(settings, diary) for _ in range(2)]
    while len(pictures(tmp_path / "run")) < 4 and workers[0].is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    workers[0].kill()
    workers.append(start_worker(settings, diary))
    for worker in (quiet, *workers[1:]):
        worker.join(max(deadline - time.monotonic(), 0))
        assert worker.exitcode == 0
    workers[0].join()
    assert pictures(tmp_path / "run") == pictures(tmp_path / "quiet") and len(pictures(tmp_path / "run")) == 14
    assert leftovers(tmp_path / "run", tmp_path / "shared") == []
