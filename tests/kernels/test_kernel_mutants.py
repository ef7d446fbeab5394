"""docs/kernel_mutants.md is about the kernels as they are, and each barrier is seen missing."""

import json

from cuda_on_cpu import KERNELS_CU
from kernel_mutants import DATA, EQUIVALENT, all_mutants, code_of, seen_by

SOURCE = KERNELS_CU.read_text("utf-8")


def test_mutant_table_lists_barriers_and_checks():
    rows = json.loads(DATA.read_text("utf-8"))
    listed = [(row["kernel"], row["line"], row["old"], row["new"]) for row in rows]
    assert listed == [mutant.key() for mutant in all_mutants(SOURCE)], "run: python tests/kernels/kernel_mutants.py"
    assert all(bool(row["seen"]) != bool(row["why"]) for row in rows)
    assert {row["why"] for row in rows if row["why"]} == set(EQUIVALENT.values())


def test_no_barrier_is_forgotten():
    listed = [mutant for mutant in all_mutants(SOURCE) if mutant.kind == "barrier"]
    assert len(listed) == code_of(SOURCE).count("__sync") > 0


def test_missing_barrier_is_detected():
    mutant = next(mutant for mutant in all_mutants(SOURCE) if mutant.kind == "barrier")
    assert mutant.kernel == "band_softmax"
    assert "bounds off" in seen_by(mutant.apply(SOURCE), mutant.kernel)
