"""Where a training step's time goes on a CPU: python benchmarks/where_time_goes.py DIR

DIR is what `train NAME --profile DIR` wrote under TensorFlow. Prints, for each kind of operation, its share of the time
that the threads which run operations spent in them, and writes nothing. What a large operation hands to other threads
is not recorded apart: it is within its own time.
"""

import collections
import sys
from pathlib import Path

SHOWN = 14


def main():
    (path,) = Path(sys.argv[1]).rglob("*.xplane.pb")
    seconds = collections.Counter()
    for name, picoseconds in own_times(path):
        seconds[kind_of(name)] += picoseconds / 1e12
    total = sum(seconds.values())
    print(f"{total:.2f} s of threads' time in operations, in {path}\n")
    print("| operation | time | share |\n| --- | --- | --- |")
    for kind, own in seconds.most_common(SHOWN):
        print(f"| {kind} | {own:.3f} s | {100 * own / total:.1f} % |")


def own_times(path):
    """Yield `(name, picoseconds)` for each operation in a trace, without what it waited for within itself."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    space.ParseFromString(path.read_bytes())
    for plane in space.planes:
        if not plane.name.startswith("/host:CPU"):
            continue
        for line in plane.lines:
            if not line.name.startswith("tf_Compute"):
                continue  # Python waits for these, and the pool below them notes no durations.
            open_events = []
            for event in sorted(line.events, key=lambda event: (event.offset_ps, -event.duration_ps)):
                while open_events and open_events[-1][0] <= event.offset_ps:
                    yield open_events.pop()[1:]
                if open_events:
                    end, name, own = open_events[-1]
                    open_events[-1] = (end, name, own - event.duration_ps)
                name = plane.event_metadata[event.metadata_id].name
                open_events.append((event.offset_ps + event.duration_ps, name, event.duration_ps))
            yield from (event[1:] for event in open_events)


def kind_of(name):
    """Return an operation's kind: the part of an event's name that its place in the network does not change."""
    return name.rpartition(":")[2].partition("#")[0] or name


if __name__ == "__main__":
    main()
