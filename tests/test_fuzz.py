"""Files damaged at random: 500 mutants of seed 20, which end in nothing but a LEDError (make fuzz: 10,000)."""

from fuzz.run import fuzz, scenes

SEED, MUTANTS = 20, 500


def test_damaged_files_end_in_typed_errors(tmp_path):
    outcomes, failures = fuzz(SEED, range(MUTANTS), tmp_path)
    assert failures == []
    # Both happen to many files: mutants that are all refused, or all read, would show nothing.
    refused = {scene for scene, outcome in outcomes if outcome.endswith("Error")}
    read = {scene for scene, outcome in outcomes if outcome == "result"}
    assert len(refused) == len(scenes(tmp_path)) >= 20
    assert len(read) >= 15
