"""Histories that broke the dispatcher once, by what broke: the seed of the tasks, and the faults as they were drawn."""

from tests.simulation.faults import Faults, Window

PINNED: dict[str, tuple[int, Faults]] = {
    "a worker that had died counted as heard in the future of a clock that jumped": (
        109,
        Faults(quiet_s=70.46856950408558, longest_delay_s=6.0, jumps=((46.0598819, 519.312012),), poison=0.0823490693),
    ),
    "a task whose pause was not over was dropped when its worker was lost": (
        155,
        Faults(
            quiet_s=50.301398373732404,
            lose_request=0.17120651211712407,
            longest_delay_s=0.5,
            store_away=(Window(22.743508809373637, 34.38648453627978),),
            clips_away=(Window(43.67750570020433, 50.301398373732404),),
            kills=(18.484710772697195,),
            jumps=((22.840218080539213, -432.0907664250989),),
            cancels=0.19984751003871054,
            no_wake=0.11980348363179068,
            slow=0.5,
        ),
    ),
    "a clock was set back while the dispatcher was away, and a pause became minutes": (
        2,
        Faults(
            quiet_s=68.15887019379929,
            lose_request=0.05301681141220019,
            double=0.07795532800041774,
            longest_delay_s=6.0,
            write_fails=0.17190691497788088,
            clips_away=(Window(53.93316844546892, 62.163926811620414), Window(17.30074962113914, 17.817555963986184)),
            kills=(17.431043969971114, 23.610432187947875, 32.91714637919064),
            freezes=(Window(5.511561941065009, 14.733783585502625), Window(59.002121076889914, 65.49230334512352)),
            restarts=(4.490457859995448, 54.89066016922993, 57.12002809944118, 63.961499859123045),
            jumps=((38.83074307190068, -191.67331568634484), (54.53199468565224, -340.3653670006729)),
        ),
    ),
    "a task that ran on a worker that was lost lost the turn that it had elsewhere": (
        35,
        Faults(
            quiet_s=60.0,
            longest_delay_s=6.0,
            write_unknown=0.1,
            kills=(8.0, 17.0, 29.0, 41.0),
            freezes=(Window(12.0, 21.0), Window(33.0, 42.0)),
            transient=0.25,
        ),
    ),
}

PUT_BACK: dict[str, tuple[int, Faults]] = {
    "applied-before-persisted": (1, Faults(quiet_s=50.0, write_fails=0.15)),
    "page-lost": (0, Faults(quiet_s=50.0, write_fails=0.15)),
    "removed-variant-raises": (2, Faults(quiet_s=50.0, removal_s=20.0)),
    "expires-in-an-outage": (
        0,
        Faults(quiet_s=70.0, store_away=(Window(10.0, 22.0), Window(30.0, 42.0), Window(50.0, 62.0))),
    ),
    "outage-burns-attempts": (0, Faults(quiet_s=60.0, clips_away=(Window(8.0, 20.0), Window(30.0, 42.0)))),
    "unknown-outcome-forgotten": (4, Faults(quiet_s=50.0, write_unknown=0.15)),
}
"""By fault that was mended, a history that must find it when it is put back."""
