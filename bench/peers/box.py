"""Run one command in a memory cgroup and measure it; make and remove a fast device. Needs root on Linux."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
# In version 1 of cgroups and in version 2: the folder, the limit, the peak, the switch against swap.
V1 = (CGROUPS / "memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.memsw.limit_in_bytes")
V2 = (CGROUPS, "memory.max", "memory.peak", "memory.swap.max")


class Failed(Exception):
    """A command that ended badly; the message says how, with the end of what it wrote to stderr."""


def drop_caches():
    """Empty the page cache, so that the next run reads from the device."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def run(argv, limit_bytes=None, timeout_seconds=1800, environment=None):
    """Run `argv` under the limit; give back its stdout and what it took.

    Times, memory and reads are those the kernel kept for the process and its threads (wait4): `read_bytes` left the
    device, `peak_resident_bytes` is VmHWM; `peak_cgroup_bytes` has the page cache in it too.
    """
    with group(limit_bytes) as (enter, peak), tempfile.TemporaryFile() as errors:
        begin = time.monotonic()
        child = subprocess.Popen(enter + [str(word) for word in argv], stdout=subprocess.PIPE, stderr=errors,
                                 env={**os.environ, **(environment or {})})
        clock = threading.Timer(timeout_seconds, child.kill)
        clock.start()
        try:
            output = child.stdout.read().decode(errors="replace")
        except BaseException:  # interrupted: nothing may stay behind in the cgroup or on the device
            child.kill()
            child.wait()
            raise
        finally:
            clock.cancel()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - begin
        if child.returncode != 0:
            raise Failed(reason(child.returncode, wall, timeout_seconds, errors))
        return {
            "output": output,
            "wall_seconds": wall,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "read_bytes": usage.ru_inblock * 512,
            "peak_resident_bytes": usage.ru_maxrss * 1024,
            "peak_cgroup_bytes": peak(),
        }


def reason(code, wall, timeout_seconds, errors):
    """Why a command failed, in a line or a few."""
    errors.seek(0)
    said = errors.read().decode(errors="replace").strip().splitlines()[-4:]
    if code == -signal.SIGKILL:
        return "ran longer than allowed" if wall >= timeout_seconds else "killed: over the memory limit"
    return f"exit code {code}: " + " | ".join(said)


@contextlib.contextmanager
def group(limit_bytes):
    """A memory cgroup: words before a command that enter it, and a function that reads the peak."""
    if limit_bytes is None:
        yield [], lambda: None
        return
    root, limit, peak, swap = V1 if V1[0].is_dir() else V2
    folder = root / f"bench-peers-{os.getpid()}"
    if root == V2[0]:
        (root / "cgroup.subtree_control").write_text("+memory")
    folder.mkdir()
    try:
        (folder / limit).write_text(str(limit_bytes))
        with contextlib.suppress(OSError):  # kernels without accounting of swap
            (folder / swap).write_text(str(limit_bytes if root == V1[0] else 0))
        enter = ["sh", "-c", 'echo 0 > "$0" && exec "$@"', str(folder / "cgroup.procs")]
        yield enter, lambda: int((folder / peak).read_text())
    finally:
        remove(folder)


def remove(folder):
    """A cgroup can go a moment after its last process has."""
    for _ in range(50):
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.1)


@contextlib.contextmanager
def fast_device(folder, sources):
    """A disk of memory: ext4 on a loop device with direct I/O over a file in tmpfs, holding copies of `sources`.

    The files are written here, outside every measured cgroup, so none of their memory counts for a peer. Mounted
    read-only. Gives back the mount point.
    """
    ram, disk = folder / "ram", folder / "disk"
    size = int(sum(bytes_in(source) for source in sources) * 1.04) + (128 << 20)
    ram.mkdir(parents=True, exist_ok=True)
    disk.mkdir(exist_ok=True)
    with contextlib.ExitStack() as undo:
        call("mount", "-t", "tmpfs", "-o", f"size={size + (16 << 20)}", "tmpfs", ram)
        undo.callback(call, "umount", ram)
        image = ram / "image"
        with open(image, "wb") as file:
            file.truncate(size)
        device = call("losetup", "--find", "--show", "--direct-io=on", image)
        undo.callback(call, "losetup", "--detach", device)
        same_read_ahead(folder, Path(device).name)
        call("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", "-E", "nodiscard", device)
        call("mount", "-o", "noatime", device, disk)
        undo.callback(call, "umount", disk)
        for source in sources:
            copy = shutil.copytree if source.is_dir() else shutil.copyfile
            copy(source, disk / source.name)
        os.sync()
        call("mount", "-o", "remount,ro", disk)
        yield disk


def same_read_ahead(folder, device):
    """Give the device the read-ahead of the disk under `folder`: what peers that map files live on."""
    number = folder.stat().st_dev
    disk = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    for queue in (disk / "queue", disk.parent / "queue"):
        if (queue / "read_ahead_kb").exists():
            Path(f"/sys/block/{device}/queue/read_ahead_kb").write_text((queue / "read_ahead_kb").read_text())
            return


def bytes_in(path):
    """The size of a file, or of the files of a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def call(*argv):
    """Run a system tool; its stdout."""
    done = subprocess.run([str(word) for word in argv], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"{argv[0]}: {done.stderr.strip()}")
    return done.stdout.strip()
