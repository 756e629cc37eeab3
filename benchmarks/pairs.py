"""Time two functions alternately, in one process, and compare them pair by pair."""

import math
import platform
import statistics
import time


def compare(name, first, name_of_second, second, *, images, pairs=7, until=math.inf):
    """Run `first` and `second` alternately, print every pair, and compare their throughputs.

    Args:
        name: of `first`.
        first: callable; called once before the timing, for compilation. It may return the seconds that count.
        name_of_second: of `second`.
        second: callable, likewise.
        images: number of images in one call.
        pairs: number of timed pairs.
        until: value of `time.monotonic()` before which every pair after the first must end.

    Returns:
        A dict of `ratio` (the median), `ratios`, and `first` and `second`, the median speeds.
    """
    for function in (first, second):
        function()
    print(f"{name} against {name_of_second}: {images} images a call, {pairs} pairs, images a second")
    ratios, speeds = [], ([], [])
    longest = 0.0
    for pair in range(pairs):
        if ratios and time.monotonic() + longest > until:
            break
        pair_began = time.monotonic()
        # Every other pair runs in reverse order, so that a drift of the machine's speed favours neither.
        order = (0, 1) if pair % 2 == 0 else (1, 0)
        seconds = [0.0, 0.0]
        for index in order:
            began = time.perf_counter()
            counted = (first, second)[index]()
            seconds[index] = time.perf_counter() - began if counted is None else counted
        for index in (0, 1):
            speeds[index].append(images / seconds[index])
        ratios.append(seconds[1] / seconds[0])
        longest = max(longest, time.monotonic() - pair_began)
        print(f"  pair {pair + 1}: {speeds[0][-1]:.1f} / {speeds[1][-1]:.1f} = {ratios[-1]:.3f}", flush=True)
    ratio = statistics.median(ratios)
    first, second = map(statistics.median, speeds)
    print(f"  medians: {first:.1f} / {second:.1f}; ratio {ratio:.3f}")
    return {"ratio": ratio, "ratios": ratios, "first": first, "second": second}


def describe():
    """Print the device and the versions of the following values."""
    from colabcnn.network import devices

    print(f"{devices.device_name()}; {devices.versions()}; {platform.platform()}")
