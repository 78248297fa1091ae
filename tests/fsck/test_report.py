from __future__ import annotations

import json

from klshm.fsck.report import MEANINGS, Report


def test_what_is_wrong_comes_first_and_everything_is_bounded() -> None:
    report = Report()
    for n in range(30):
        report.add("archive", f"n{n}", "contradiction", open_time=n)
    assert report.is_clean and len(report.first) == 20
    for n in range(500):
        report.add("archive", f"t{n}", "bits", open_time=n, number=1 + (n == 7))
    assert not report.is_clean and report.problems["bits"] == 501 and report.notes["contradiction"] == 30
    assert {finding.problem for finding in report.first} == {"bits"}
    document = report.document()
    assert document["subjects"][0] == {"place": "archive", "subject": "t7", "bits": 2}
    assert len(document["subjects"]) == 200 and document["subjects_left_out"] == 330
    assert len(json.dumps(document)) < 30_000 and not document["clean"]


def test_every_problem_has_a_meaning() -> None:
    assert all(MEANINGS.values())
