"""`ticketlab verify --release`: is an archive the release that it says it is? Needs no git.

Everything is computed from the archive alone: the SHA-256 of its files, that the RO-Crate metadata
and the tickets' manifest list them, the hashes of dvc.lock, and the verdicts from the metrics.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from hashlib import md5
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from ticketlab.files import parse_yaml
from ticketlab.pipeline.params import validate
from ticketlab.pipeline.repository import lock_stages
from ticketlab.reader import findings, sources
from ticketlab.release import contents, crate
from ticketlab.release.contents import Digest, Files, Release, opened
from ticketlab.spec import InputError
from ticketlab.study import verdicts
from ticketlab.study.claims import Verdict

LONGEST = 90
"""Characters of an expected or a found text that a line shows."""


class Problem(NamedTuple):
    """One line: what a file should be, and what it is."""

    file: str
    expected: str
    found: str

    def __str__(self) -> str:
        pairs = enumerate(zip(self.expected, self.found, strict=False))
        same = next((index for index, (one, other) in pairs if one != other), 0)
        expected, found = (_short(text, same) for text in (self.expected, self.found))
        return f"{self.file}: expected {expected}, found {found}"


def _short(text: str, same: int) -> str:
    """A text in one line of up to LONGEST characters; a long one begins where two texts differ."""
    start = max(0, min(same - 20, len(text) - LONGEST))
    line = " ".join(f"{'...' if start else ''}{text[start:]}".split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


class Outcome(NamedTuple):
    """What was looked at in an archive, and what is wrong with it."""

    files: int
    tickets: int
    verdicts: int
    problems: list[Problem]


def verify(path: Path) -> Outcome:
    """Check the release in an archive; InputError for a file that is no archive."""
    with opened(path) as files:
        digests: dict[str, Digest] = {}
        found = [
            Problem(name, "once in the archive", f"{count} times")
            for name, count in Counter(files.listed).items()
            if count > 1
        ]
        for name in sorted(files.names):
            try:
                digests[name] = contents.digest(files.read(name))
            except InputError as error:
                found.append(Problem(name, "a readable file", str(error)))
        found += [*sums(files, digests), *described(files, digests)]
        found += [*locked(files, digests), *tickets(files, digests), *judged(files)]
        stored = len(_stored(files))
        lines = (
            files.read(contents.VERDICTS).count(b"\n") - 1 if contents.VERDICTS in digests else 0
        )
        return Outcome(len(files.names), stored, lines, found)


# ---------------------------------------------------------------- files


def sums(files: Files, digests: Mapping[str, Digest]) -> Iterator[Problem]:
    """Files with another SHA-256 than SUMS has, and files that only one side has."""
    try:
        known = _sums(files)
    except InputError as error:
        yield Problem(contents.SUMS, "a line of hash and name per file", str(error))
        return
    for name in sorted({*known, *files.names} - {contents.SUMS}):
        if name not in files.names:
            yield Problem(name, f"SHA-256 {known[name]}", "no such file")
        elif name not in known:
            yield Problem(name, f"no such file, {contents.SUMS} does not have it", "a file")
        elif name in digests and digests[name].sha256 != known[name]:
            yield Problem(name, f"SHA-256 {known[name]}", digests[name].sha256)


def _sums(files: Files) -> dict[str, str]:
    known: dict[str, str] = {}
    for number, line in enumerate(_text(files, contents.SUMS).splitlines(), 1):
        parts = re.fullmatch(r"([0-9a-f]{64})  (.+)", line)
        if parts is None:
            raise InputError(f"line {number}: {line}")
        known[parts[2]] = parts[1]
    return known


def _text(files: Files, name: str) -> str:
    """A file as text; InputError if it is not there or not readable."""
    if name not in files.names:
        raise InputError("no such file")
    try:
        return files.read(name).decode()
    except UnicodeDecodeError:
        raise InputError("bytes that are no UTF-8") from None


def _json(files: Files, name: str) -> Any:
    text = _text(files, name)
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"not readable JSON ({error})") from None


# ---------------------------------------------------------------- RO-Crate

NEEDED = ("name", "description", "datePublished", "license", "hasPart")
"""What RO-Crate asks for of the whole."""


def described(files: Files, digests: Mapping[str, Digest]) -> Iterator[Problem]:
    """What RO-Crate metadata lacks, and files that it does not describe as they are."""
    try:
        graph = _json(files, crate.NAME)["@graph"]
        entities = {one["@id"]: one for one in graph}
        about = entities[crate.NAME]["about"]["@id"]
        root = entities[about]
        lacking = [key for key in NEEDED if not root.get(key)]
        listed = {unquote(one["@id"]): entities.get(one["@id"], {}) for one in root["hasPart"]}
        known = {name: (one.get("@type"), one.get("contentSize")) for name, one in listed.items()}
    except InputError as error:
        yield Problem(crate.NAME, "RO-Crate metadata", str(error))
        return
    except (KeyError, TypeError, AttributeError) as error:
        yield Problem(crate.NAME, "RO-Crate metadata", f"{type(error).__name__} {error}")
        return
    yield from (Problem(crate.NAME, f"{key} of {about}", "none") for key in lacking)
    for name in sorted({*known, *files.names} - {crate.NAME}):
        kind, size = known.get(name, (None, None))
        if name not in files.names:
            yield Problem(name, f"a file, {crate.NAME} lists it", "no such file")
        elif kind != "File":
            yield Problem(
                name, f"in {crate.NAME} as a File", f"type {kind}" if kind else "not there"
            )
        elif name in digests and size != str(digests[name].size):
            yield Problem(name, f"{size} bytes by {crate.NAME}", f"{digests[name].size} bytes")


# ---------------------------------------------------------------- dvc.lock, tickets


def facts(files: Files) -> Release:
    """What the release says of itself; InputError if it says nothing readable."""
    return validate(Release, _json(files, contents.FACTS), contents.FACTS)


def locked(files: Files, digests: Mapping[str, Digest]) -> Iterator[Problem]:
    """What stages of the studies read and wrote, where its MD5 is another one than dvc.lock has."""
    try:
        release, lock = facts(files), lock_stages(_text(files, LOCK))
        kinds = set(parse_yaml(_text(files, PIPELINE), PIPELINE)["stages"])
    except (InputError, KeyError, TypeError) as error:
        yield Problem(LOCK, f"readable with {contents.FACTS} and {PIPELINE}", str(error))
        return
    for stage, entry in lock.items():
        outs = [out["path"] for out in entry.get("outs", ())]
        if stage.partition("@")[0] in kinds and any(_is_of(path, release) for path in outs):
            for one in (*entry.get("deps", ()), *entry["outs"]):
                found = _md5(one["path"], digests)
                if found != one["md5"] and not _is_left_out(one["path"], release):
                    wanted = f"MD5 {one['md5']} of {LOCK} ({stage})"
                    yield Problem(one["path"], wanted, found or "no such file")


LOCK, PIPELINE = "dvc.lock", "dvc.yaml"


def _is_of(path: str, release: Release) -> bool:
    """Whether an output is of one of the release's studies."""
    return path.startswith(tuple(f"results/{study}/" for study in release.studies))


def _is_left_out(path: str, release: Release) -> bool:
    """Fingerprints of code, which git has for some studies only, and units without tickets."""
    is_stored = re.match(r"results/[^/]+/runs/", path) is not None
    return path.startswith("results/code/") or (is_stored and not release.tickets)


def _md5(path: str, digests: Mapping[str, Digest]) -> str | None:
    """The hash that DVC gives a file or a folder; None if there is none."""
    if path in digests:
        return digests[path].md5
    inside = {name.removeprefix(f"{path}/"): one for name, one in digests.items()
              if name.startswith(f"{path}/")}  # fmt: skip
    listing = [{"md5": inside[name].md5, "relpath": name} for name in sorted(inside)]
    return f"{md5(json.dumps(listing).encode()).hexdigest()}.dir" if inside else None


def tickets(files: Files, digests: Mapping[str, Digest]) -> Iterator[Problem]:
    """Tickets that the manifest does not have, or has otherwise."""
    try:
        manifest = validate(sources.Manifest, _json(files, sources.MANIFEST), sources.MANIFEST)
    except InputError as error:
        yield Problem(sources.MANIFEST, "a manifest of tickets", str(error))
        return
    known = {sources.file_of(place, manifest.layout): entry.sha256
             for place, entry in manifest.tickets.items()}  # fmt: skip
    stored = _stored(files)
    for name in sorted({*known, *stored}):
        if name not in known:
            yield Problem(name, f"no such file, {sources.MANIFEST} does not have it", "a ticket")
        elif name not in stored:
            yield Problem(name, f"a ticket, {sources.MANIFEST} has it", "no such file")
        elif name in digests and digests[name].sha256 != known[name]:
            yield Problem(
                name, f"SHA-256 {known[name]} of {sources.MANIFEST}", digests[name].sha256
            )


def _stored(files: Files) -> set[str]:
    """The files of stored tickets; PrAC's critical sets have the same suffix elsewhere."""
    form = rf"results/[^/]+/runs/.*{re.escape(sources.SUFFIX)}"
    return {name for name in files.names if re.fullmatch(form, name)}


# ---------------------------------------------------------------- verdicts


def judged(files: Files) -> Iterator[Problem]:
    """Verdicts and sentences that are not those of the metrics, judged by the release's claims."""
    try:
        studies = facts(files).studies
        said = csv.reader(_text(files, contents.VERDICTS).splitlines())
        given = {(row[0], row[2]): row for row in list(said)[1:]}
    except (InputError, IndexError, csv.Error) as error:
        yield Problem(contents.VERDICTS, "a table of verdicts", str(error))
        return
    expected: dict[tuple[str, str], list[str]] = {}
    for study in studies:
        try:
            found = contents.judged(files, study)
        except InputError as error:
            yield Problem(f"results/{study}", "metrics that decide the claims", str(error))
            return
        expected |= {(row[0], row[2]): list(row) for row in contents.rows(study, found)}
        yield from _sentences(files, study, found)
    for key in sorted({*expected, *given}):
        if expected.get(key) != given.get(key):
            sides = (_row(side.get(key)) for side in (expected, given))
            yield Problem(f"{contents.VERDICTS}: {key[0]}: {key[1]}", *sides)


def _row(row: Sequence[str] | None) -> str:
    """'reproduced, 1.2 [0.8, 1.6] (n = 10), q .032'."""
    if row is None or len(row) != len(contents.COLUMNS):
        return "no such row" if row is None else ", ".join(row)
    _, _, _, word, reason, number, q = row
    return ", ".join(filter(None, [word, reason, number, q and f"q {q}"]))


def _sentences(
    files: Files, study: str, found: Mapping[str, Sequence[Verdict]]
) -> Iterator[Problem]:
    """Sentences on the verdicts that findings.md lacks, with the nearest that it has."""
    name = f"results/{study}/{findings.FILE}"
    try:
        text = _text(files, name)
    except InputError as error:
        yield Problem(name, "the findings", str(error))
        return
    there = re.split(r"(?<=\.) |\n+", text)
    for one in (one for some in found.values() for one in verdicts.chosen(some)):
        if (sentence := findings.sentence(one)) not in text:
            nearest = get_close_matches(sentence, there, n=1, cutoff=0.6)
            yield Problem(f"{name}: {one.claim.id}", sentence, *(nearest or ["no such sentence"]))
