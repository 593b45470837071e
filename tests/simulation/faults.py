"""What goes wrong in a run, drawn from its seed: messages, the task store, the object store, processes, the clock."""

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Window:
    """Seconds of the run, from its beginning."""

    from_s: float
    to_s: float

    def holds(self, at_s: float) -> bool:
        return self.from_s <= at_s < self.to_s


@dataclass(frozen=True)
class Faults:
    """One history of faults. Chances are of each message or write; nothing goes wrong from `quiet_s` on."""

    quiet_s: float
    lose_request: float = 0.0
    lose_reply: float = 0.0
    double: float = 0.0
    delay: float = 0.0
    longest_delay_s: float = 0.0
    write_fails: float = 0.0  # and nothing was written
    write_unknown: float = 0.0  # it was written, and its writer hears of an error
    store_away: tuple[Window, ...] = ()
    clips_away: tuple[Window, ...] = ()
    kills: tuple[float, ...] = ()
    freezes: tuple[Window, ...] = ()
    restarts: tuple[float, ...] = ()  # of the dispatcher
    jumps: tuple[tuple[float, float], ...] = ()  # (when, by how many seconds)
    removal_s: float | None = None  # the dispatcher is started again without one of its variants
    cancels: float = 0.0  # share of the tasks whose client changes its mind
    poison: float = 0.0  # share that end the process that begins them
    transient: float = 0.0  # share of attempts that fail and are worth another
    no_wake: float = 0.0  # share of ingresses that die between accepting and waking the dispatcher
    slow: float = 1.0  # calls take so many times what was predicted

    @property
    def count(self) -> int:
        """Kinds of faults and single events in it."""
        chances = (self.lose_request, self.lose_reply, self.double, self.delay, self.write_fails, self.write_unknown)
        shares = (self.cancels, self.poison, self.transient, self.no_wake)
        events = (self.store_away, self.clips_away, self.kills, self.freezes, self.restarts, self.jumps)
        return (
            sum(chance > 0 for chance in chances + shares)
            + sum(map(len, events))
            + (self.removal_s is not None)
            + (self.slow != 1.0)
        )


KINDS = (
    "requests",
    "replies",
    "doubles",
    "delays",
    "writes",
    "unknown writes",
    "store away",
    "clips away",
    "kills",
    "freezes",
    "restarts",
    "jumps",
    "removal",
    "cancels",
    "poison",
    "transient",
    "no wake",
)


def drawn(seed: int, lease_s: float) -> Faults:
    """The faults of a seed: in a third of the histories one kind alone, so that what follows is its own doing; else
    each kind with a chance of a third."""
    random = Random(f"faults {seed}")
    quiet_s = random.uniform(30.0, 90.0)
    alone = random.choice(KINDS) if random.random() < 1 / 3 else None
    kinds = {alone} if alone is not None else {kind for kind in KINDS if random.random() < 1 / 3}

    def chance(kind: str, most: float) -> float:
        return random.uniform(0.2, 1.0) * most if kind in kinds else 0.0

    def windows(kind: str, most_s: float) -> tuple[Window, ...]:
        found = []
        for _ in range(random.randint(1, 3) if kind in kinds else 0):
            begin_s = random.uniform(1.0, quiet_s - 2.0)
            found.append(Window(begin_s, min(quiet_s, begin_s + random.uniform(0.5, most_s))))
        return tuple(found)

    def instants(kind: str) -> tuple[float, ...]:
        return tuple(sorted(random.uniform(1.0, quiet_s) for _ in range(random.randint(1, 4) if kind in kinds else 0)))

    return Faults(
        quiet_s=quiet_s,
        lose_request=chance("requests", 0.2),
        lose_reply=chance("replies", 0.2),
        double=chance("doubles", 0.2),
        delay=chance("delays", 0.3),
        longest_delay_s=random.choice((0.5, 3.0, 1.5 * lease_s)),
        write_fails=chance("writes", 0.2),
        write_unknown=chance("unknown writes", 0.2),
        store_away=windows("store away", 4 * lease_s),
        clips_away=windows("clips away", 3 * lease_s),
        kills=instants("kills"),
        freezes=windows("freezes", 2.5 * lease_s),
        restarts=instants("restarts"),
        jumps=tuple((at, random.choice((-1, 1)) * random.uniform(3.0, 600.0)) for at in instants("jumps")),
        removal_s=random.uniform(5.0, quiet_s) if "removal" in kinds else None,
        cancels=chance("cancels", 0.3),
        poison=chance("poison", 0.15),
        transient=chance("transient", 0.3),
        no_wake=chance("no wake", 0.5),
        slow=random.choice((1.0, 1.0, 1.0, 0.5, 3.0)),
    )
