"""Where a training step's time goes: python benchmarks/where_time_goes.py DIR

DIR is the folder that `train NAME --profile DIR` wrote, under TensorFlow or JAX; reading it needs JAX. Prints a table.
On a GPU or TPU: the time of each kind of kernel and of the gaps between kernels. On a CPU: for each kind of operation,
its share of the time that the threads spent in operations. Work that a large operation gives to other threads is not
recorded separately: it is part of the operation's own time.
"""

import collections
import re
import sys
from dataclasses import dataclass
from pathlib import Path

SHOWN = 14
# A kernel that is launched while another one runs follows it within this time; in a longer gap the device waits.
LAUNCH_NS = 20_000
# The lines of a device's plane that hold its operations; other lines repeat them by module, step or layer.
DEVICE_LINES = ("Stream", "XLA Ops", "")
# Threads that run operations under TensorFlow and under XLA. Python waits for these; TensorFlow's inner thread pool
# records no durations.
HOST_LINES = ("tf_Compute", "tf_XLA")
WAITING = "wait for completion"
# The first pattern that matches a kernel's name, or that of its operation, gives its kind. C++ names have upper-case
# letters, so case is ignored.
KINDS = {
    "copies and memory set": r"^mem(cpy|set)|^copy",
    "convolution, gradient of the kernels": r"wgrad|bw-?_?filter|backwardfilter",
    "convolution, gradient of the inputs": r"dgrad|bw-?_?input|backwardinput",
    "convolution, change of layout": r"nchw.?to.?nhwc|nhwc.?to.?nchw|computeoffsets|converttensor|tensortransform",
    "convolution, forward": r"fprop|convforward|cudnn-conv|conv2d",
    "convolution, direction unknown": r"cudnn|xmma|winograd|implicit_|conv(?!ert)",
    "matrix product": r"gemm|gemv|nvjet|cublas|cutlass|_dot|^dot",
    "pooling, gathering and scattering": r"select_and_scatter|select-and-scatter|scatter|gather|reduce_window|pool",
    "reductions (BatchNorm, loss, bias), with what is fused": r"reduc|batch_?norm|softmax",
    "random numbers": r"threefry|rng|philox|random",
    "changes of layout": r"transpose|concatenate|pad",
    "elementwise, fused": r"fusion|^wrapped_|^loop_|^input_|triton",
}


@dataclass(frozen=True)
class Event:
    """An entry of a trace: start and duration in nanoseconds; `operation` is XLA's name, or ""."""

    start: float
    duration: float
    name: str
    operation: str = ""


def main():
    (path,) = Path(sys.argv[1]).rglob("*.xplane.pb")
    print("\n".join(report(path)))


def report(path):
    """Return the table of a trace as lines of Markdown: of the first device with events, else of the CPU."""
    from jax.profiler import ProfileData

    planes = list(ProfileData.from_file(str(path)).planes)
    for plane in planes:
        if plane.name.startswith("/device:") and (events := device_events(plane)):
            return device_table(plane.name, events)
    for plane in planes:
        lines = [line for line in plane.lines if line.name.startswith(HOST_LINES)]
        if plane.name.startswith("/host:CPU") and lines:
            return host_table([[Event(e.start_ns, e.duration_ns, e.name) for e in line.events] for line in lines])
    found = ", ".join(f"{plane.name} ({', '.join(line.name for line in plane.lines)})" for plane in planes)
    return [f"The trace holds no operations of a device or of a CPU, but these planes and lines: {found}."]


def device_events(plane):
    """Return the `Event`s of the first kind of lines that has any."""
    for beginning in DEVICE_LINES:
        lines = [line for line in plane.lines if line.name.startswith(beginning)]
        if events := [event_of(event) for line in lines for event in line.events]:
            return events
    return []


def event_of(event):
    operation = next((str(value) for name, value in event.stats if name == "hlo_op"), "")
    return Event(event.start_ns, event.duration_ns, event.name, operation)


def device_table(device, events):
    """Return the table of a device's kernels and of the gaps between them."""
    seconds, counts = collections.Counter(), collections.Counter()
    for event in events:
        kind = kind_of_kernel(event)
        seconds[kind] += event.duration / 1e9
        counts[kind] += 1
    gaps = gaps_between(events)
    end, start = max(event.start + event.duration for event in events), min(event.start for event in events)
    total = max((end - start) / 1e9, 1e-9)
    rows = [(kind, counts[kind], spent) for kind, spent in seconds.most_common(SHOWN)]
    hidden = [kind for kind, _ in seconds.most_common()[SHOWN:]]
    rows += (
        [("everything else", sum(counts[kind] for kind in hidden), sum(seconds[kind] for kind in hidden))]
        if hidden
        else []
    )
    short = [gap / 1e9 for gap in gaps if gap < LAUNCH_NS]
    long = [gap / 1e9 for gap in gaps if gap >= LAUNCH_NS]
    rows += [("nothing, gaps under 20 µs: launches", len(short), sum(short))]
    rows += [("nothing, longer gaps: waits for the host", len(long), sum(long))]
    kernel = sum(seconds.values()) / len(events)
    return [
        f"{len(events):,} kernels and copies on {device} in {total:.3f} s, {1e6 * kernel:.1f} µs each in the mean; it "
        f"was idle for {100 * sum(gaps) / 1e9 / total:.0f} % of that time. Kernels that run at the same time count "
        "each, and after each call the host waits for its result, as it does only while a trace is taken. XLA records "
        "no command buffers while a trace is taken.",
        "",
        "| kind | kernels or gaps | time | share |",
        "| --- | --- | --- | --- |",
        *(f"| {kind} | {count:,} | {spent:.4f} s | {100 * spent / total:.1f} % |" for kind, count, spent in rows),
    ]


def kind_of_kernel(event):
    """Return a kernel's kind, or for an unknown kind its name without the trailing number."""
    names = [name.lower() for name in (event.name, event.operation) if name]
    for kind, pattern in KINDS.items():
        if any(re.search(pattern, name) for name in names):
            return kind
    return as_code(re.sub(r"[._]\d+$", "", event.operation or event.name))


def gaps_between(events):
    """Return the gaps in which no event ran, in nanoseconds."""
    gaps, end = [], None
    for event in sorted(events, key=lambda event: event.start):
        if end is not None and event.start > end:
            gaps.append(event.start - end)
        end = max(end or event.start, event.start + event.duration)
    return gaps


def host_table(lines):
    """Return the table of a CPU's operations from the events of each thread."""
    seconds = collections.Counter()
    for events in lines:
        for name, nanoseconds in own_times(events):
            if WAITING not in name:
                seconds[kind_of(name)] += nanoseconds / 1e9
    total = sum(seconds.values())
    return [
        f"{total:.2f} s of threads' time in operations",
        "",
        "| operation | time | share |",
        "| --- | --- | --- |",
        *(
            f"| {as_code(kind)} | {own:.3f} s | {100 * own / total:.1f} % |"
            for kind, own in seconds.most_common(SHOWN)
            if total
        ),
    ]


def own_times(events):
    """Yield `(name, nanoseconds)` for each operation of a thread, without the operations inside it."""
    open_events = []
    for event in sorted(events, key=lambda event: (event.start, -event.duration)):
        while open_events and open_events[-1][0] <= event.start:
            yield open_events.pop()[1:]
        if open_events:
            end, name, own = open_events[-1]
            open_events[-1] = (end, name, own - event.duration)
        open_events.append((event.start + event.duration, event.name, event.duration))
    yield from (event[1:] for event in open_events)


def kind_of(name):
    """Return an operation's kind: the part of its name that does not depend on its place in the network."""
    return re.sub(r"\.\d+$", "", name.rpartition(":")[2].partition("#")[0]) or name


def as_code(name):
    """Return a name from a trace as safe text for a cell of a table."""
    return re.sub(r"[|`\s]+", " ", name).strip()[:80]


if __name__ == "__main__":
    main()
