"""What a page cache makes of a cyclic scan: plain buffered reads of one file, again and again, by memory at hand.

    python bench/peers/page_cache.py FILE --work DIR

For each share of the file that the memory cgroup can hold, one pass fills the cache and the others are measured. The
least recently used pages go first, and in a cycle these are the ones that are needed next. Needs Linux and root.
Writes DIR/page-cache.json.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import box

READ_BYTES = 4 << 20
# What the reader itself and the kernel's tables take of the cgroup.
SLACK_BYTES = 40 << 20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--work", type=Path, default=Path())
    parser.add_argument("--shares", default="0.1,0.25,0.5,0.75,1.1", help="of the file, that memory can hold")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--read", action="store_true", help="only read: what runs in the cgroup")
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(options.file, options.passes + 1)))
        return
    points = []
    for share in map(float, options.shares.split(",")):
        box.drop_caches()
        limit = int(options.file.stat().st_size * share) + SLACK_BYTES
        argv = [sys.executable, __file__, options.file, "--read", "--passes", options.passes]
        seconds = json.loads(box.run(argv, limit)["output"])[1:]
        point = {"cached_fraction": min(share, 1.0), "pass_seconds": statistics.median(seconds),
                 "pass_seconds_spread": [min(seconds), max(seconds)]}
        print(json.dumps(point), file=sys.stderr)
        points.append(point)
    command = f"python bench/peers/page_cache.py {options.file.name} --shares {options.shares} --passes {options.passes}"
    record = {"command": command, "file_bytes": options.file.stat().st_size, "points": points}
    (options.work / "page-cache.json").write_text(json.dumps(record, indent=1) + "\n")


def read(file, passes):
    """Seconds of each pass."""
    buffer = bytearray(READ_BYTES)
    seconds = []
    for _ in range(passes):
        begin = time.monotonic()
        with open(file, "rb", buffering=0) as source:
            while source.readinto(buffer):
                pass
        seconds.append(time.monotonic() - begin)
    return seconds


if __name__ == "__main__":
    main()
