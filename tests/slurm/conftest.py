"""A real Slurm of one node: munged, slurmctld and slurmd in a temporary folder, ended with the tests of a module."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
# Seconds between SIGTERM and SIGKILL.
KillWait=1
# Two jobs at once also on one core.
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE
"""


class Cluster:
    """What a test does with the running Slurm."""

    def __init__(self, folder: Path) -> None:
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "OMP_NUM_THREADS": "1"}

    def call(self, *words: str) -> str:
        """The output of one of Slurm's commands; CalledProcessError where it fails."""
        done = subprocess.run(words, env=self.environment, check=True, capture_output=True, text=True, timeout=30)
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """Job ID, such as 1_0 -> state."""
        lines = self.call("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return {job: state for job, state in (line.split() for line in lines)}


def wait_for(what: str, condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)


def why_not() -> str | None:
    """Why no Slurm can be started here."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"no {', '.join(absent)} here (Debian's packages slurm-wlm and munge)"
    if os.geteuid() != 0:
        return "slurmd starts jobs as root only"
    if "munge" not in {user.pw_name for user in pwd.getpwall()}:
        return "no user munge here"
    return None


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with ExitStack() as ending:
        # Not pytest's own temporary folder, which munged's user may not enter.
        folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        cluster = Cluster(folder)
        prepare(folder)
        start_munged(folder, ending)
        for daemon in ("slurmctld", "slurmd"):
            start([daemon, "-D", "-f", str(folder / "slurm.conf")], folder / f"{daemon}.log", ending)
        ending.callback(end_jobs, cluster)  # first of all, while the daemons are there to do it
        wait_for("slurmd ready", lambda: "idle" in ready(cluster))
        yield cluster


def prepare(folder: Path) -> None:
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(mode=0o755)
    (folder / "munge" / "key").write_bytes(os.urandom(1024))
    (folder / "munge" / "key").chmod(0o400)
    for path in (folder / "munge", folder / "munge" / "key"):
        shutil.chown(path, "munge")
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = one.getsockname()[1], other.getsockname()[1]
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, ports=ports, folder=folder))


def start_munged(folder: Path, ending: ExitStack) -> None:
    own = folder / "munge"
    files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    words = ["munged", "--foreground", *(f"--{option}={own / name}" for option, name in files.items())]
    start(words, folder / "munged.log", ending, user="munge", group=pwd.getpwnam("munge").pw_gid, extra_groups=[])
    wait_for("munged's socket", (own / "socket").exists)


def start(words: list[str], log: Path, ending: ExitStack, **options: object) -> None:
    with log.open("wb") as output:
        daemon = subprocess.Popen(words, stdout=output, stderr=output, **options)
    ending.callback(end, daemon)


def end(daemon: subprocess.Popen) -> None:
    daemon.terminate()
    try:
        daemon.wait(10)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def end_jobs(cluster: Cluster) -> None:
    """Their processes are no children of slurmd's and would outlive it."""
    try:
        for job in cluster.jobs():
            cluster.call("scancel", job)
        wait_for("no jobs left", lambda: not cluster.jobs(), 20)
    except subprocess.SubprocessError:
        pass  # slurmctld never came up, so there are none


def ready(cluster: Cluster) -> str:
    try:
        return cluster.call("sinfo", "--noheader", "--format=%T")
    except subprocess.CalledProcessError:
        return ""
