"""``python -m aerostat``: the command of the same name, which lies beside this Python's other commands."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig


def main() -> None:
    name = "aerostat.exe" if os.name == "nt" else "aerostat"
    beside = os.path.join(sysconfig.get_path("scripts"), name)
    command = beside if os.path.exists(beside) else shutil.which("aerostat")
    if command is None:
        sys.exit("the command aerostat is not installed beside this Python")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command, [command, *sys.argv[1:]])


if __name__ == "__main__":
    main()
