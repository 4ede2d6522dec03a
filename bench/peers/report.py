"""The record of a run as Markdown: medians, with the spread of the repeats."""

STEP_HEAD = ("peer", "prompts", "s per step", "min–max", "tokens/s", "whole run s", "CPU s per step", "CPU s per GB",
             "cycles per byte", "read GB per step", "peak MB, cgroup", "peak MB, process")
TITLES = {
    "streamed": "Streamed: a limit of {limit:,.0f} MB for {weights:.1f} GB of weights, cold",
    "fast": "Streamed from a device of memory, the same limit",
    "rows": "Resident, rows that share a step",
}


def markdown(record, median):
    machine = record["machine"]
    what = f"{machine['processor']}, {machine['threads']} threads, clock taken as {machine['ghz']:.2f} GHz"
    parts = [f"{what}; {machine['aerostat']}; {machine['begun']}."]
    for case, title in TITLES.items():
        rows = [step_row(machine, group, median) for group in groups(record["steps"], case)]
        if rows:
            heading = title.format(limit=machine["memory_limit_bytes"] / 1e6, weights=machine["weight_bytes"] / 1e9)
            parts.append(f"## {heading}\n" + table(STEP_HEAD, rows))
    if record["steps"]:
        parts.append(agreement(record["steps"]))
    if record["resident"]:
        parts.append("## Resident, the same GGUF file: tokens/s\n" + resident(record["resident"], median))
    parts += [f"Skipped {name}: {why}" for name, why in record["skipped"].items()]
    return "\n\n".join(parts) + "\n"


def cases(record):
    """What is published of each case: without the commands, which name places on one machine, and the tokens."""
    found = {"streamed": [], "fast": [], "resident": []}
    for entry in record["steps"] + record["resident"]:
        case = {"rows": "resident"}.get(entry.get("case"), entry.get("case", "resident"))
        private = ("command", "tokens", "steps_seconds", "case")
        found[case].append({key: value for key, value in entry.items() if key not in private})
    return {case: entries for case, entries in found.items() if entries}


def agreement(entries):
    """Whether the peers computed the same thing: the greedy tokens of the first prompt, against the first peer's."""
    known = [entry for entry in entries if entry.get("tokens")]
    names = ", ".join(dict.fromkeys(entry["peer"] for entry in known))
    first, differ = {}, {}
    for entry in known:
        tokens = first.setdefault((entry["case"], entry["rows"]), entry["tokens"])
        if entry["tokens"] != tokens:
            differ[f"{entry['peer']} ({entry['case']}, {entry['rows']} prompts)"] = None
    verdict = f"not those of the first peer: {', '.join(differ)}" if differ else "all equal"
    return f"Greedy tokens of the first prompt, {names}: {verdict}."


def groups(entries, case):
    """Repeats of the same measurement, together."""
    found = {}
    for entry in entries:
        if entry["case"] == case:
            found.setdefault((entry["rows"], entry["peer"]), []).append(entry)
    return [found[key] for key in sorted(found, key=lambda key: key[0])]


def step_row(machine, group, median):
    good = [entry for entry in group if "failed" not in entry]
    first = group[0]
    if not good:
        return [first["peer"], first["rows"], first["failed"]] + [""] * (len(STEP_HEAD) - 3)

    def mid(key):
        return median([entry[key] for entry in good])

    def peak(key):
        values = [entry[key] for entry in good if entry[key]]
        return f"{max(values) / 1e6:,.0f}" if values else ""

    steps = [entry["step_seconds"] for entry in good]
    per_byte = mid("step_cpu_seconds") / machine["weight_bytes"]
    return [first["peer"], first["rows"], f"{mid('step_seconds'):.2f}", f"{min(steps):.2f}–{max(steps):.2f}",
            f"{mid('tokens_per_second'):.2f}", f"{mid('wall_seconds'):.1f}", f"{mid('step_cpu_seconds'):.2f}",
            f"{per_byte * 1e9:.2f}", f"{per_byte * machine['ghz'] * 1e9:.2f}", f"{mid('step_read_bytes') / 1e9:.2f}",
            peak("peak_cgroup_bytes"), peak("peak_resident_bytes")]


def resident(entries, median):
    """Formats and threads down, the two peers side by side."""
    rows = []
    for key in dict.fromkeys((entry["format"], entry["threads"]) for entry in entries):
        row = list(key)
        for what in ("prompt_tokens_per_second", "tokens_per_second"):
            rates = []
            for peer in ("llama.cpp", "aerostat"):
                values = [entry[what] for entry in entries
                          if (entry["format"], entry["threads"], entry["peer"]) == (*key, peer) and what in entry]
                rates.append(median(values) if values else None)
            row += ["" if rate is None else f"{rate:.1f}" for rate in rates]
            row.append("" if None in rates else f"{rates[1] / rates[0]:.2f}")
        rows.append(row)
    return table(("format", "threads", "prompt: llama.cpp", "Aerostat", "ratio", "generation: llama.cpp", "Aerostat",
                  "ratio"), rows)


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
