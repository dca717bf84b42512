"""Released code and failed reproductions: what was run, and at which revision (released.yaml)."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ticketlab.files import read_json
from ticketlab.spec import ROOT, Spec
from ticketlab.study import verdicts
from ticketlab.study.claims import Verdict, as_q, load_redirects, read_entries
from ticketlab.study.verdicts import markdown

Verdicts = Mapping[str, Mapping[str, list[Verdict]]]
"""Verdicts by study and paper."""


class Finding(Spec):
    """A property of released code, and how it was established."""

    says: str
    how: Literal["read", "ran", "rewritten", "calculated"]
    """Read in the code; its own modules were run; rewritten here or before, and run; or derived
    from its behaviour."""
    ran: str
    """Details: which files or settings, how many seeds."""
    claims: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Ids of our claims that test it; of a merged claim, the one that replaced it is shown."""


class Released(Spec):
    """The released code of a paper and what it was used for here."""

    paper: str
    code: str | None = None
    """The repository, OWNER/NAME, if its name is known."""
    revision: str
    """The commit that the findings concern."""
    use: str
    """Which parts were read and which were run."""
    checked: str
    """How we searched for errors of our own before calling anything not reproduced."""
    notes: dict[str, str | dict[str, str]] = Field(default_factory=dict)
    """Notes by claim id, shown if it is not reproduced; also on the comparison's claims. A note
    that holds for some studies only is given by study."""
    findings: Annotated[tuple[Finding, ...], Field(strict=False)] = ()

    @property
    def named(self) -> str:
        """Return 'OWNER/NAME at `revision`'."""
        return f"{self.code} at `{self.revision}`" if self.code else f"`{self.revision}`"


def load_released(path: Path = ROOT / "released.yaml") -> list[Released]:
    """Return the entries of released.yaml; InputError names a bad one."""
    return read_entries(path, Released)


def verdicts_of(studies: Iterable[str], results: Path = ROOT / "results") -> Verdicts:
    """Return the verdicts of some studies, by study and paper."""
    return {study: verdicts.of_study(results / study) for study in studies}


# ---------------------------------------------------------------- released code


def code_rows(found: Verdicts, released: Sequence[Released]) -> list[list[str]]:
    """Return a heading and a row per finding: code, property, what was run, our verdicts."""
    words, moved = _words(found), {one.old: one.new for one in load_redirects()}
    heading = ["paper", "code", "what was found", "how", "what was run", "our claims on it"]
    rows = [heading]
    for one in released:
        for it in one.findings:
            claims = dict.fromkeys(filter(None, (moved.get(claim, claim) for claim in it.claims)))
            ours = "; ".join(f"{claim}: {words.get(claim, 'not run')}" for claim in claims)
            rows.append([one.paper, one.named, _line(it.says), it.how, _line(it.ran), ours or "-"])
    return rows


def _words(found: Verdicts) -> dict[str, str]:
    """Return the verdict on each claim in every study that has it: '*reproduced* (desk)'."""
    words: dict[str, list[str]] = {}
    for study, papers in found.items():
        for one in (verdict for some in papers.values() for verdict in some):
            words.setdefault(one.claim.id, []).append(f"*{one.word}* ({study})")
    return {claim: ", ".join(each) for claim, each in words.items()}


# ---------------------------------------------------------------- what did not reproduce


def not_reproduced(
    found: Verdicts, released: Sequence[Released], results: Path = ROOT / "results"
) -> str:
    """Return the claims not reproduced, by study and paper, with what was run, as Markdown."""
    known = {one.paper: one for one in released}
    notes = {claim: note for one in released for claim, note in one.notes.items()}
    parts = []
    for study, papers in found.items():
        for paper, some in papers.items():
            failed = [one for one in some if one.word == "not reproduced"]
            if failed:
                origin = read_json(results / study / paper / "metrics.json")["provenance"]
                head = _what_was_run(study, paper, origin, known.get(paper))
                own = {claim: _in(study, note) for claim, note in notes.items()}
                parts.append(f"{head}\n\n{markdown(_rows(failed, own))}")
    return "\n".join(parts) or "Nothing: no claim of these studies is not reproduced.\n"


def _in(study: str, note: str | Mapping[str, str]) -> str:
    return note if isinstance(note, str) else note.get(study, "")


def _what_was_run(study: str, paper: str, origin: Mapping[str, Any], code: Released | None) -> str:
    ours = (
        f"**{paper}**, study `{study}`: run by our code (fingerprint `{origin['code'][:12]}`) on "
        f"data `{origin['data'][:12]}`, {origin['device']}, {origin['instruction_set']}, torch "
        f"{origin['torch']}."
    )
    if code is None:
        return ours
    theirs = f"The authors' code ({code.named}): {_line(code.use)}"
    return f"{ours} {theirs} {_line(code.checked)}"


def _rows(failed: Sequence[Verdict], notes: Mapping[str, str]) -> list[list[str]]:
    rows = [["claim", "statement", "where", "published", "holds if", "ours", "q", "note"]]
    for one in failed:
        claim, note = one.claim, _line(notes.get(one.claim.id, ""))
        said = [claim.statement, claim.source, claim.paper_value or "-", claim.holds_if]
        rows.append([claim.id, *said, one.ours, as_q(one.q), note])
    return rows


def _line(text: str) -> str:
    return " ".join(text.split())
