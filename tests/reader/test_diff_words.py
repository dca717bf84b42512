"""What changed between two revisions, in words: the number now, where it came from, how sure."""

import pytest
from revisions import claim, verdict

from ticketlab.reader import diff_words
from ticketlab.reader.diff import ClaimChange, Shift
from ticketlab.reader.diff_curves import Difference
from ticketlab.study.claims import Claim
from ticketlab.study.rules import Word
from ticketlab.study.stats import Count, Evidence, Interval, interval, share

SAVING = claim("saving.prac", unit="cost", number="the search saves {} %")


def said(
    a: Evidence | None,
    b: Evidence | None,
    shift: Shift | None = None,
    about: Claim | None = None,
    words: tuple[Word, Word] = ("reproduced", "reproduced"),
) -> str:
    """The sentence on a claim with this evidence in both revisions."""
    one, two = (verdict(found, word, about) for found, word in zip((a, b), words, strict=True))
    return diff_words.sentence(ClaimChange("desk/prac", "prac-X", one, two, shift))


def test_a_number_that_grew_is_up_with_its_interval() -> None:
    shift = Shift(Interval(12.1, 10.2, 14.0, 10), paired=True)
    assert said(interval([71.0, 71.0]), interval([83.1, 83.1]), shift, SAVING) == (
        "The search saves 83.10, up from 71.00 by 12.10 [10.20, 14.00] (10 seeds, paired)."
    ).replace("83.10,", "83.10 %,")


def test_a_number_that_fell_is_down_by_a_positive_amount() -> None:
    shift = Shift(Interval(-0.4, -0.6, -0.2, 10), paired=True)
    assert said(interval([-0.31, -0.31]), interval([-0.71, -0.71]), shift) == (
        "PrAC minus IMP is -0.71 points, down from -0.31 by 0.40 [0.20, 0.60] (10 seeds, paired)."
    )


def test_an_interval_over_zero_is_no_clear_difference() -> None:
    shift = Shift(Interval(-0.1, -0.6, 0.4, 3), paired=False, sides=(3, 10))
    assert said(interval([0.5, 0.5]), interval([0.4, 0.4]), shift) == (
        "PrAC minus IMP is 0.40 points, 0.50 before: no clear difference, -0.10 [-0.60, 0.40] "
        "(3 and 10 seeds, not paired)."
    )


def test_seeds_that_all_moved_alike_are_said_to() -> None:
    """Once -16.70 [-16.70, -16.70] was "within noise"."""
    shift = Shift(Interval(-16.7, -16.7, -16.7, 3), paired=True)
    text = said(interval([80.0, 80.0]), interval([63.3, 63.3]), shift)
    assert text.endswith("down from 80.00 by exactly 16.70 in each of 3 seeds.")


def test_shares_and_counts_name_seeds() -> None:
    found = claim("strong.none_found", unit="seeds", number="none is found in {} seeds")
    assert said(share([True, False]), share([True, True]), None, found) == (
        "None is found in 2 of 2 seeds, up from 1 of 2."
    )
    rounds = claim("rounds.imp_minus_colt", unit="rounds", number="COLT needs {} rounds fewer")
    shift = Shift(Count(-1.5, -2, -1, 2), paired=True)
    assert said(Count(6, 6, 6, 2), Count(4.5, 4, 5, 2), shift, rounds) == (
        "COLT needs 4.50 rounds fewer, down from 6.00 by 1.50, from 1 to 2 (2 seeds, paired)."
    )


def test_numbers_of_another_kind_have_no_direction() -> None:
    found = claim("strong.none_found", unit="seeds", number="none is found in {} seeds")
    assert said(interval([32.0, 33.0]), share([True, True]), None, found) == (
        "None is found in 2 of 2 seeds; before, it was another kind of number, 32.50."
    )


def test_a_number_on_other_data_says_which() -> None:
    moved = claim("transfer.colt_minus_imp.mean")
    same = interval([1.0, 2.0])
    assert said(same, same, about=moved) == "Transfer: COLT minus IMP is 1.50 points, as before."
    unknown = claim("differences.my_own_minus_imp.mean")
    assert said(same, same, about=unknown).startswith("My own minus imp is")


def test_a_single_seed_has_no_interval() -> None:
    one, two = Interval(1.0, None, None, 1), Interval(2.0, None, None, 1)
    text = said(one, two, Shift(one, paired=True))
    assert text.endswith("2.00 points, up from 1.00 by 1.00 (1 seed, paired).")


def test_a_flip_is_said_with_both_words() -> None:
    same = interval([1.0, 2.0])
    text = said(same, same, words=("undecided", "reproduced"))
    assert text == (
        "PrAC minus IMP is 1.50 points, as before; the verdict goes from undecided to reproduced."
    )


def test_a_number_of_one_side_alone_is_said_to_be_new_or_gone() -> None:
    found = interval([1.0, 2.0])
    assert said(None, found).endswith("and nothing was measured before.")
    assert said(found, None).endswith("before, and nothing was measured now.")


def test_headlines_are_those_of_the_abstract_that_changed() -> None:
    moved, same = interval([1.0, 2.0]), interval([2.0, 3.0])

    def one(name: str, tier: str, b: Interval) -> ClaimChange:
        about = claim(id=name, tier=tier)
        return ClaimChange("desk/prac", name, verdict(same, "reproduced", about),
                           verdict(b, "reproduced", about))  # fmt: skip

    changes = [one("a", "headline", moved), one("b", "headline", same), one("c", "control", moved)]
    assert len(diff_words.headlines(changes)) == 1


def test_flips_are_counted_by_kind() -> None:
    kinds: list[tuple[Word, Word]] = [("undecided", "reproduced"), ("reproduced", "undecided")]
    flips = [
        ClaimChange("desk/prac", "x", verdict(None, a), verdict(None, b))
        for a, b in [kinds[0], kinds[1], kinds[0]]
    ]
    assert diff_words.counted(flips) == (
        "2 from undecided to reproduced, 1 from reproduced to undecided"
    )


def difference(arm: str, *by: float) -> Difference:
    """How far an arm moved in each seed."""
    return Difference(arm, dict(enumerate(by)), interval(list(by)), None)


def test_arms_that_moved_are_named_the_farthest_first() -> None:
    found = [
        difference("imp", 1.0, 1.1),
        difference("prac", -5.0, -5.0),
        difference("random", 0, 0),
    ]
    assert diff_words.moved(found) == (
        "2 of 3 arms moved: PrAC is lower by exactly 5.00 in each of 2 seeds, "
        "IMP is higher by 1.05 [0.41, 1.69] (2 seeds, paired)."
    )


def test_arms_that_cannot_be_paired_are_said_to() -> None:
    assert diff_words.moved([]).startswith("No arm has a seed and a range of x in both")


@pytest.mark.parametrize("by", [(0.0, 0.0), (-1.0, 1.1)])
def test_arms_that_did_not_clearly_move_are_not_named(by: tuple[float, ...]) -> None:
    same = int(not any(by))
    assert diff_words.moved([difference("imp", *by)]) == (
        f"No arm clearly moved; {same} of 1 are identical."
    )
