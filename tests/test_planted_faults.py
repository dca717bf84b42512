"""The campaign of planted faults can start: every fault can be planted where it says."""

import planted_faults
import pytest
from planted_faults import FAULTS, KINDS, PARTS, ROOT, Fault


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_can_be_planted(fault: Fault) -> None:
    source = (ROOT / fault.file).read_text()
    changed = planted_faults.planted(source, fault)
    assert changed != source and fault.kind in KINDS and fault.paper in PARTS
    compile(changed, fault.file, "exec")


def test_a_fault_that_is_nowhere_or_in_two_places_is_refused() -> None:
    fault = Fault("colt", "mask", 4, "made up", "file.py", "one", "two")
    for source, times in (("nothing", 0), ("one, one", 2)):
        with pytest.raises(SystemExit, match=f"{times} times, not once"):
            planted_faults.planted(source, fault)


def test_each_paper_has_faults_and_tests_that_may_see_them() -> None:
    assert {fault.paper for fault in FAULTS} == set(PARTS)
    for _, others in PARTS.values():
        assert all((ROOT / "tests" / name).exists() for name in others.split())
