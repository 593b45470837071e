"""Simulate the dispatcher under faults, seed by seed, for as long as you like.

python -m tests.simulation --runs 2000
python -m tests.simulation --hours 2
python -m tests.simulation --seed 17            # one history again, with what was broken
python -m tests.simulation --old-fault NAME     # how soon a fault that was mended would be found
"""

import argparse
import logging
import sys
import time

from tests.simulation.old_faults import OLD_FAULTS
from tests.simulation.runs import one_run


def main() -> int:
    """0 when nothing was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--hours", type=float)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--old-fault", choices=sorted(OLD_FAULTS))
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    ends_at = time.monotonic() + arguments.hours * 3600 if arguments.hours else None
    seed = arguments.first if arguments.seed is None else arguments.seed
    began = told = time.monotonic()
    runs = tasks = faults = 0
    simulated_s = 0.0
    broken: list[int] = []
    while True:
        result = one_run(seed, arguments.old_fault)
        runs, tasks, faults = runs + 1, tasks + result.tasks, faults + result.faults
        simulated_s += result.simulated_s
        if result.violations:
            broken.append(seed)
            print(f"seed {seed}: {len(result.violations)} violations")
            for violation in result.violations[:5]:
                print(f"  {violation}")
            print(f"  again: python -m tests.simulation --seed {seed}", flush=True)
        seed += 1
        now = time.monotonic()
        if now - told > 30:
            told = now
            print(f"{runs} runs, {len(broken)} broken", flush=True)
        done = arguments.seed is not None or (now >= ends_at if ends_at is not None else runs >= arguments.runs)
        if done or (arguments.old_fault and broken):
            break
    print(
        f"{runs} runs, {tasks} tasks, {faults} kinds of faults and single events, {simulated_s / 3600:.1f} simulated "
        f"hours in {time.monotonic() - began:.0f} s: {len(broken)} broken"
        + (f", seeds {broken[:20]}" if broken else "")
    )
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
