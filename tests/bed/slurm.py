"""Slurm on one machine: munge, a controller, three nodes with fake GPUs, and sshd in front of it.

Needs root and Debian's packages, no systemd and no internet. All state lies below one directory.
"""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("slurm-wlm", "munge", "openssh-server", "openssh-client", "rsync", "netcat-openbsd", "curl")
PROGRAMS = ("slurmctld", "slurmd", "munged", "sshd", "ssh-keygen", "rsync", "nc", "curl")
GPUS = {"node1": ("A100", 4), "node2": ("A100", 4), "node3": ("H100", 8)}
#: Nothing tells them apart but their names: jobs of the first are cancelled by tests, as spot machines are taken away.
PARTITIONS = ("spot", "ondemand")
SBIN = "/usr/sbin:/sbin"
HOSTS = Path("/etc/hosts")
PYTHON = next(path for path in ("/usr/bin/python3", f"{sys.base_prefix}/bin/python3") if Path(path).exists())


def why_not() -> str | None:
    """Why the bed cannot run on this machine, None if it can (missing packages are installed first)."""
    if os.geteuid() != 0:
        return "the Slurm test bed needs root"
    if not _missing():
        return None
    if shutil.which("apt-get") is None:
        return f"the Slurm test bed needs {', '.join(_missing())}, and apt-get to install them"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": 300}
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=False, env=env, **quiet)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]
    subprocess.run(install, check=False, env=env, **quiet)
    return f"apt-get could not install {', '.join(_missing())}" if _missing() else None


def _missing() -> list[str]:
    path = os.environ.get("PATH", "") + ":" + SBIN
    return [program for program in PROGRAMS if shutil.which(program, path=path) is None]


@dataclass(frozen=True, slots=True)
class SlurmBed:
    """Where one bed lives.

    Attributes:
        root: Directory of everything, short (munge's socket lies in it), readable by all.
        ports: Controller, one for each node, sshd.
        uv: The uv program that SkyPilot's set-up of a machine shall find instead of downloading it.
    """

    root: Path
    ports: tuple[int, ...]
    uv: Path

    @property
    def user(self) -> str:
        """Login of the nodes. It has uid 0, so that it can read this checkout and its venv wherever they lie."""
        return f"bed{self.ports[0]}"

    @property
    def node_home(self) -> Path:
        """Home directory that all nodes share."""
        return self.root / "node"

    @property
    def ssh_port(self) -> int:
        """Where sshd listens on loopback."""
        return self.ports[-1]

    @property
    def conf(self) -> Path:
        """slurm.conf, for SLURM_CONF."""
        return self.root / "etc/slurm.conf"

    def run(self, *command: str, timeout_s: float = 20.0) -> str:
        """Output of a Slurm command."""
        done = subprocess.run(
            command, env=self._env(), check=True, capture_output=True, text=True, timeout=timeout_s
        )
        return done.stdout

    def up(self) -> None:
        """Start everything and wait until every node is idle."""
        for part in (
            "etc",
            "run",
            "log",
            "state",
            "munge",
            "bin",
            "tmp",
            "node/.ssh",
            *(f"spool/{node}" for node in GPUS),
        ):
            (self.root / part).mkdir(parents=True)
        self.root.chmod(0o755)
        self._name_user_and_nodes()
        self._start_munge()
        self._write_slurm_conf()
        self._start("slurmctld", "-f", str(self.conf))
        for node in GPUS:
            self._start("slurmd", "-N", node, "-f", str(self.conf))
        self._write_shims()
        self._start_sshd()
        self._wait_for_nodes()

    def forget(self) -> None:
        """Take the login and the node names out of the machine's files again."""
        subprocess.run(["userdel", "--force", self.user], check=False, capture_output=True)
        lines = HOSTS.read_text().splitlines(keepends=True)
        HOSTS.write_text("".join(line for line in lines if str(self.root) not in line))

    def _env(self) -> dict[str, str]:
        path = os.environ.get("PATH", "") + ":" + SBIN
        return {"PATH": path, "SLURM_CONF": str(self.conf), "HOME": str(self.root)}

    def _start(self, *command: str) -> None:
        log = (self.root / "log" / f"{command[0].rsplit('/', 1)[-1]}.out").open("ab")
        with log:
            subprocess.run(
                command,
                env=self._env(),
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=30,
            )

    def _name_user_and_nodes(self) -> None:
        make = [
            "useradd",
            "-o",
            "-u",
            "0",
            "-g",
            "0",
            "-M",
            "-d",
            str(self.node_home),
            "-s",
            "/bin/bash",
            "-p",
            "*",
        ]
        subprocess.run([*make, self.user], check=True, capture_output=True)
        with HOSTS.open("a") as hosts:  # SkyPilot's executor on the node resolves the nodes' names
            hosts.write(f"127.0.0.1 {' '.join(GPUS)} # {self.root}\n")

    def _start_munge(self) -> None:
        home = self.root / "munge"
        (home / "key").write_bytes(os.urandom(128))
        (home / "key").chmod(0o400)
        home.chmod(0o755)
        paths = {"key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed", "socket": "s"}
        self._start("munged", "--force", *(f"--{option}={home / name}" for option, name in paths.items()))

    def _write_slurm_conf(self) -> None:
        controller, *nodes = self.ports[:-1]
        lines = [SLURM_CONF.format(root=self.root, port=controller)]
        gres = ["AutoDetect=off"]
        for (node, (gpu, count)), port in zip(GPUS.items(), nodes, strict=True):
            lines.append(
                f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} "
                f"CPUs=16 RealMemory=65536 Gres=gpu:{gpu}:{count} State=UNKNOWN"
            )
            # A fake GPU is an empty regular file: without File= the node is drained as invalid.
            for index in range(count):
                (self.root / f"spool/{node}/gpu{index}").touch()
            gres.append(
                f"NodeName={node} Name=gpu Type={gpu} File={self.root}/spool/{node}/gpu[0-{count - 1}]"
            )
        for partition in PARTITIONS:
            is_default = "YES" if partition == PARTITIONS[0] else "NO"
            lines.append(
                f"PartitionName={partition} Nodes={','.join(GPUS)} Default={is_default} MaxTime=1-0 State=UP"
            )
        self.conf.write_text("\n".join(lines) + "\n")
        (self.root / "etc/gres.conf").write_text("\n".join(gres) + "\n")

    def _write_shims(self) -> None:
        """Stand-ins for the two downloads of SkyPilot's set-up of a machine: uv and its own CPython."""
        shutil.copy(self.uv, self.root / "bin/uv.real")
        for name, text in SHIMS.items():
            shim = self.root / "bin" / name
            shim.write_text(text.format(bin=self.root / "bin", python=PYTHON))
            shim.chmod(0o755)
        path = f"{self.root / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        cache = Path.home() / ".cache/uv"  # what an earlier bed fetched for a machine's set-up
        for profile in (".bash_profile", ".bashrc"):
            (self.node_home / profile).write_text(f"export PATH={path} UV_CACHE_DIR={cache}\n")

    def _start_sshd(self) -> None:
        for key in ("key", "host_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.root / "etc" / key)],
                check=True,
            )
        shutil.copy(self.root / "etc/key.pub", self.node_home / ".ssh/authorized_keys")
        config = self.root / "etc/sshd_config"
        passed_on = {
            name: value for name, value in os.environ.items() if name.endswith(("_BUNDLE", "CERT_FILE"))
        }
        passed_on["SLURM_CONF"] = str(self.conf)
        config.write_text(
            SSHD_CONFIG.format(
                port=self.ssh_port,
                root=self.root,
                user=self.user,
                env=" ".join(f"{name}={value}" for name, value in passed_on.items()),
            )
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        self._start("/usr/sbin/sshd", "-f", str(config), "-E", str(self.root / "log/sshd.log"))

    def _wait_for_nodes(self) -> None:
        deadline = time.monotonic() + 60
        while self.run("sinfo", "-h", "-N", "-o", "%T").split() != ["idle"] * len(GPUS) * len(PARTITIONS):
            if time.monotonic() > deadline:
                raise TimeoutError(f"Slurm's nodes are not idle: {self.run('sinfo', '-N', '-l')}")
            time.sleep(0.3)


SLURM_CONF = """\
ClusterName=bed
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/s
CredType=cred/munge
SlurmctldPort={port}
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd-%n.pid
SlurmdSpoolDir={root}/spool/%n
StateSaveLocation={root}/state
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd-%n.log
JobCompType=jobcomp/filetxt
JobCompLoc={root}/log/completed.txt
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=2
SlurmdParameters=config_overrides
GresTypes=gpu
SwitchType=switch/none
"""

SSHD_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {root}/etc/host_key
PidFile {root}/run/sshd.pid
AuthorizedKeysFile {root}/node/.ssh/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
AllowUsers {user}
MaxStartups 200
MaxSessions 200
SetEnv {env}
Subsystem sftp /usr/lib/openssh/sftp-server
"""

SHIMS = {
    "sudo": "#!/bin/bash\nexit 0\n",
    "uv": """\
#!/bin/bash
args=(); before=
for arg in "$@"; do
  [ "$before" = --python ] && [ "$arg" = 3.10 ] && arg={python}
  args+=("$arg"); before="$arg"
done
exec {bin}/uv.real "${{args[@]}}"
""",
    "curl": """\
#!/bin/bash
for arg in "$@"; do
  [ "$arg" = https://astral.sh/uv/install.sh ] &&
    {{ echo 'mkdir -p "$UV_INSTALL_DIR" && ln -sf {bin}/uv "$UV_INSTALL_DIR/uv"'; exit 0; }}
done
exec /usr/bin/curl "$@"
""",
}
