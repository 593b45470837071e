"""What a file comes to, by its credentials and by what a run recorded of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.trust.authorities import identity
from tests.trust.pictures import png, signed_png
from trust.credentials import CredentialsFound
from trust.verification import Recorded, Verdict, inspect, judge, worst

SHA = "a" * 64
RENDER = {"fingerprint": "f1", "unsigned_sha256": "b" * 64}
FOUND = CredentialsFound("valid", "Studio", "", "Rushes 1", "f1.mp4", (), True, False, render=RENDER)
RECORDED = Recorded("f1", SHA, "b" * 64)


@pytest.mark.parametrize(
    ("found", "recorded", "verdict", "reason"),
    [
        (FOUND, RECORDED, Verdict.VALID, None),
        (FOUND, None, Verdict.VALID, None),
        (replace(FOUND, state="trusted"), RECORDED, Verdict.TRUSTED, None),
        (None, None, Verdict.UNSIGNED, None),
        (None, RECORDED, Verdict.UNSIGNED, None),
        (replace(FOUND, state="invalid", problems=("hash",)), None, Verdict.CHANGED, "hash"),
        (replace(FOUND, state="expired", problems=("old",)), RECORDED, Verdict.EXPIRED, "old"),
        (replace(FOUND, state="unread", problems=("cut",), render=None), None, Verdict.UNSIGNED, "cut"),
        (FOUND, replace(RECORDED, sha256="c" * 64), Verdict.CHANGED, "its SHA-256 is aaaaaaaaaaaa…"),
        (None, replace(RECORDED, sha256="c" * 64), Verdict.CHANGED, "its SHA-256 is"),
        (FOUND, replace(RECORDED, fingerprint="f2"), Verdict.CHANGED, "the fingerprint f1, recorded is f2"),
        (FOUND, replace(RECORDED, unsigned_sha256="d" * 64), Verdict.CHANGED, "the unsigned_sha256"),
        (replace(FOUND, render=None), RECORDED, Verdict.VALID, None),
    ],
)
def test_the_verdict_is_the_worst_that_is_known(
    found: CredentialsFound | None, recorded: Recorded | None, verdict: Verdict, reason: str | None
) -> None:
    report = judge("a.mp4", SHA, found, recorded)
    assert report.verdict is verdict
    assert (reason or "") in "; ".join(report.reasons)
    assert bool(report.reasons) is (reason is not None)


def test_of_several_the_worst_counts() -> None:
    assert worst([Verdict.VALID, Verdict.UNSIGNED, Verdict.TRUSTED]) is Verdict.UNSIGNED
    assert worst([Verdict.CHANGED, Verdict.UNSIGNED]) is Verdict.CHANGED
    assert worst([Verdict.EXPIRED, Verdict.VALID]) is Verdict.EXPIRED
    assert worst([]) is Verdict.VALID


def test_files_of_third_parties_are_looked_at_too(tmp_path: Path) -> None:
    agency = identity("Agency")
    signed, plain = tmp_path / "photo.png", tmp_path / "plain.png"
    signed.write_bytes(signed_png(agency))
    plain.write_bytes(png())
    assert inspect(signed, "photo.png").verdict is Verdict.VALID
    assert inspect(signed, "photo.png", trust_anchors=agency.root).verdict is Verdict.TRUSTED
    assert inspect(plain, "plain.png").verdict is Verdict.UNSIGNED
    told = inspect(signed, "photo.png").as_json()
    assert told["verdict"] == "valid"
    assert told["credentials"]["signed_by"] == "Agency"
