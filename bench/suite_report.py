"""The suite's rows as a Markdown table and a plot."""

from collections.abc import Sequence

from .reproduce_plots import finished, new_figure

Record = dict
COLUMNS = ("measurement", "s", "of PEFT's", "x floor", "step's peak GB", "whole peak GB", "J", "note")
FIRST = {"bench.training_step": "ours", "bench.mixed_batch": "mixed"}  # the loop whose seconds stand for the row
OURS, PEFT, OTHER = "#0072b2", "#d55e00", "#009e73"  # told apart by the colour-blind too


def table(records: Sequence[Record], missing: int = 0) -> str:
    """A heading a group; energy is of a step, and - where nothing counted it."""
    lines = ["# Speed and memory", ""]
    machines = {record["report"]["machine"] for record in records if "machine" in record.get("report", {})}
    lines += [f"Machine: {'; '.join(sorted(machines)) or 'not known, as no row was finished'}."]
    lines += [f"Energy: {reason}." for reason in sorted({energy_note(r) for r in records} - {""})]
    if missing:
        lines.append(f"{missing} rows are not measured yet.")
    for group in dict.fromkeys(record["group"] for record in records):
        lines += ["", f"## {group}", "", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        lines += [f"| {' | '.join(cells(r))} |" for r in records if r["group"] == group]
    return "\n".join(lines) + "\n"


def energy_note(record: Record) -> str:
    """Why a row has no energy."""
    return record.get("report", {}).get("energy", "")


def cells(record: Record) -> list[str]:
    """One line; what did not come to an end has its reason and no figures."""
    if record["status"] != "done":
        said = " ".join(record.get("said", []))[-160:].replace("|", "/")
        note = said if record["status"] in ("failed", "refused") else record["status"]
        return [record["name"], *["-"] * (len(COLUMNS) - 2), note or record["status"]]
    report = record["report"]
    name = FIRST.get(module_of(record), "")
    peak = report["peak_mb"].get(name) if name else report.get("peak_mb")
    return [
        record["name"],
        shown(seconds_of(record)),
        shown(report.get("time_ratio")),
        shown(report.get("times_the_floor")),
        shown(peak and peak / 1e3),
        shown(report["whole_peak_mb"] / 1e3 if "whole_peak_mb" in report else None),
        shown(report["joules"][name] if "joules" in report else None),
        note_of(report),
    ]


def module_of(record: Record) -> str:
    """What was run."""
    return record["command"][1]


def seconds_of(record: Record) -> float:
    """Of a step, of all steps of a person, of an image, or of the whole job."""
    report = record["report"]
    if name := FIRST.get(module_of(record)):
        return report["seconds"][name]
    return report["in_all"][0] if "in_all" in report else report.get("whole_seconds") or report["seconds_an_image"]


def note_of(report: dict) -> str:
    """What the columns do not say."""
    notes = [f"{report['run']} ({report['attention']})"] if "attention" in report else []
    for ratio in ("memory_ratio", "mixed_to_one_person", "mixed_to_separate", "images_a_minute"):
        if ratio in report:
            notes.append(f"{ratio.replace('_', ' ')} {report[ratio]:.3g}")
    return ", ".join(notes)


def shown(figure: float | None) -> str:
    """Three digits."""
    return "-" if figure is None else f"{figure:.3g}"


def plot(records: Sequence[Record]) -> bytes | None:
    """Seconds of each step as a bar, PEFT's under ours; None without any."""
    steps = [r for r in records if r["status"] == "done" and module_of(r) in FIRST]
    if not steps:
        return None
    figure = new_figure(9, 1.5 + 0.3 * len(steps))
    axes = figure.subplots()
    for place, record in enumerate(steps):
        seconds, name = record["report"]["seconds"], FIRST[module_of(record)]
        colour = OURS if name == "ours" else OTHER
        axes.barh(-place, seconds[name], height=0.4, color=colour, label=label_once(axes, name))
        if "peft" in seconds:
            axes.barh(-place - 0.4, seconds["peft"], height=0.4, color=PEFT, label=label_once(axes, "peft"))
    axes.set_yticks([-place for place in range(len(steps))], [record["name"] for record in steps], fontsize=8)
    axes.set(xlabel="seconds a step, median")
    return finished(figure, "")


def label_once(axes: object, name: str) -> str:
    """The legend names each kind of bar once."""
    known = axes.get_legend_handles_labels()[1]  # type: ignore[attr-defined]
    names = {"ours": "ours, stage 2", "mixed": "ours, stage 1", "peft": "PEFT"}
    return "_" if names[name] in known else names[name]
