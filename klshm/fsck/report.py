"""What a check of the files found, bounded however much it is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple


__all__ = ["MEANINGS", "Finding", "Report"]

_KEPT: Final = 20
_SUBJECTS_KEPT: Final = 200

MEANINGS: Final = {
    "unreadable": "it cannot be used as it is",
    "structure": "the file's own structure is broken",
    "format": "its tables or keys are not those of an archive or journal",
    "bits": "its checksum says that it is not what was written",
    "misaligned": "its time is none at which a bar of its interval opens",
    "impossible": "its values cannot be those of a bar",
    "left open": "an open bar that later ones follow",
    "hole": "bars between the first and the last are not there",
    "unconfirmed": "closed long ago and still not known to be the exchange's own",
    "fold": "it was made from lower bars that do not add up to it",
    "lost commits": "bars that had been stored are neither in the archive nor in the journal",
    "progress": "what it says of its progress cannot be",
    # Notes: nothing is wrong with the file.
    "contradiction": "the exchange's own bar differs from the sum of its own lower bars",
    "absent": "the exchange itself had no bar there when it was asked",
    "torn": "a process was killed while it wrote this; a start takes the published half",
    "foreign": "not klshm's; left alone",
    "not checked": "it could not be looked at",
}
"""Every problem and note, and what it means."""

_NOTES: Final = frozenset(("contradiction", "absent", "torn", "foreign", "not checked"))


class Finding(NamedTuple):
    """One thing that is wrong, or worth a note.

    Attributes:
        place: "archive", "journal", "snapshot" or "segment".
        subject: Table, block, row: whatever it is about.
        problem: A key of `MEANINGS`.
        open_time: Of the bar concerned, UTC ms; None: it is about more than one.
        detail: What was found, for people.
    """

    place: str
    subject: str
    problem: str
    open_time: int | None = None
    detail: str = ""


@dataclass
class Report:
    """Everything that one check found.

    Attributes:
        looked_at: Place to what was looked at there: tables, rows, blocks.
        problems: How often each problem was found.
        notes: How often each note was taken.
        first: The first findings, notes only while there is room.
        repaired: What was mended, in numbers; empty where nothing was.
        failed: What could not be mended, and why.
    """

    looked_at: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    first: list[Finding] = field(default_factory=list)
    repaired: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    _subjects: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def add(
        self,
        place: str,
        subject: str,
        problem: str,
        *,
        open_time: int | None = None,
        detail: str = "",
        number: int = 1,
    ) -> None:
        """Take note of something found.

        Args:
            place: Kind of file.
            subject: What it is about.
            problem: A key of `MEANINGS`.
            open_time: Of the (first) bar concerned, UTC ms.
            detail: For people.
            number: How many bars it is about.
        """
        is_note = problem in _NOTES
        (self.notes if is_note else self.problems)[problem] += number
        self._subjects.setdefault((place, subject), Counter())[problem] += number
        finding = Finding(place, subject, problem, open_time, detail)
        if len(self.first) < _KEPT:
            self.first.append(finding)
        elif not is_note:
            # Notes make room: what is wrong is named first.
            for index, kept in enumerate(self.first):
                if kept.problem in _NOTES:
                    self.first[index] = finding
                    break

    def subjects(self) -> list[tuple[str, str, dict[str, int]]]:
        """Return place, subject and its problems with their numbers, worst first."""
        worst = sorted(self._subjects.items(), key=lambda item: (-_weight(item[1]), item[0]))
        return [(place, subject, dict(found)) for (place, subject), found in worst]

    def document(self) -> dict[str, Any]:
        """Return the report as one JSON document; of subjects at most 200, of findings 20."""
        subjects = self.subjects()
        return {
            "clean": self.is_clean,
            "looked_at": self.looked_at,
            "problems": dict(self.problems),
            "notes": dict(self.notes),
            "subjects": [
                {"place": place, "subject": subject, **found} for place, subject, found in subjects[:_SUBJECTS_KEPT]
            ],
            "subjects_left_out": max(0, len(subjects) - _SUBJECTS_KEPT),
            "first": [finding._asdict() for finding in self.first],
            "repaired": self.repaired,
            "failed": self.failed,
        }


def _weight(found: Counter[str]) -> int:
    return sum(number for problem, number in found.items() if problem not in _NOTES)
