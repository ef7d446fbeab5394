"""Makes group_beams.json: what transformers finds with groups of beams, on 100 random settings.

Run it in an environment of its own, outside of this project's, because transformers 5 has no groups:

    python -m venv V && V/bin/pip install torch==2.13.0 transformers==4.56.2 && V/bin/python make_group_beams.py

4.56.2 is the last release that holds the loop itself. 4.57 fetches it from the Hub (transformers-community/group-beam-search)
when it runs, and moved the diversity penalty behind all other rules about scores; that is the order here. It matters where a
rule scales or replaces scores, so each case also says whether 4.56.2 as it is finds the same.

The model is a table: logits of the next id by the two before it, drawn by NumPy from a seed (tests/generation/toy_model.py),
so that the test needs neither torch nor weights.
"""

import json
import random
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import LEDConfig, LEDForConditionalGeneration
from transformers.generation.logits_process import HammingDiversityLogitsProcessor
from transformers.modeling_outputs import Seq2SeqLMOutput

VOCABULARY, POSITIONS, CASES = 23, 31, 100


class TableLED(LEDForConditionalGeneration):
    """An LED whose logits come from a table; its encoder is there only because generate wants one."""

    table: torch.Tensor
    penalty_last = True

    def forward(self, decoder_input_ids=None, encoder_outputs=None, **_):
        """Logits of what follows the last two ids; 0 stands before the first."""
        padded = torch.nn.functional.pad(decoder_input_ids, (1, 0))
        return Seq2SeqLMOutput(logits=self.table[padded[:, :-1], padded[:, 1:]])

    def _get_logits_processor(self, *arguments, **named):
        found = super()._get_logits_processor(*arguments, **named)
        if self.penalty_last:
            found.sort(key=lambda processor: isinstance(processor, HammingDiversityLogitsProcessor))
        return found


def random_case(rng: random.Random) -> dict:
    """A prompt for each document, what the encoder read, and settings: JSON-ready."""
    documents, groups = rng.choice([1, 2, 3]), rng.choice([2, 2, 3, 4])
    beams = groups * rng.choice([1, 2, 3])
    settings: dict = {"num_beams": beams, "num_beam_groups": groups, "num_return_sequences": rng.randint(1, beams)}
    settings["diversity_penalty"] = rng.choice([0.1, 0.5, 1.0, 2.5, 100.0])
    settings["length_penalty"] = rng.choice([0.0, 0.5, 1.0, 1.0, 2.0, -1.0])
    settings["early_stopping"] = rng.choice([True, False, "never"])
    settings |= rng.choice([{}, {"max_length": 9}, {"max_length": 25}, {"max_new_tokens": 4}, {"max_new_tokens": 17}])
    settings |= rng.choice([{}, {}, {"min_length": 5}, {"min_new_tokens": 3}])
    settings["no_repeat_ngram_size"] = rng.choice([0, 0, 0, 2, 3])
    settings["encoder_no_repeat_ngram_size"] = rng.choice([0, 0, 2, 3])
    settings["repetition_penalty"] = rng.choice([1.0, 1.0, 1.3, 3.5, 0.7])
    settings["forced_bos_token_id"] = rng.choice([None, None, None, 0, 11])
    settings["forced_eos_token_id"] = rng.choice([None, None, 2, 5])
    settings["eos_token_id"] = rng.choice([2, 2, 2, [2, 5], [7, 2, 5], None])
    numbers = np.random.default_rng(rng.randrange(2**32))
    prompt = np.full((documents, 1), 2)
    if rng.random() < 0.5:
        prompt = np.concatenate([prompt, numbers.integers(3, VOCABULARY, (documents, rng.choice([1, 3])))], axis=1)
    source = numbers.integers(3, VOCABULARY, (documents, 16))
    table = {"seed": rng.randrange(1000), "eos_bias": rng.choice([0.0, 1.0, 2.0])}
    return {"table": table, "prompt": prompt.tolist(), "source": source.tolist(), "settings": settings}


def texts_and_scores(model: TableLED, case: dict, *, penalty_last: bool) -> tuple[list, list]:
    """What transformers finds."""
    model.penalty_last = penalty_last
    table = np.random.default_rng(case["table"]["seed"]).normal(scale=2.0, size=(VOCABULARY,) * 3)
    table[:, :, 2] += case["table"]["eos_bias"]
    model.table = torch.tensor(table, dtype=torch.float32)
    found = model.generate(
        torch.tensor(case["source"]),
        attention_mask=torch.ones(len(case["source"]), 16, dtype=torch.long),
        decoder_input_ids=torch.tensor(case["prompt"]),
        return_dict_in_generate=True,
        output_scores=True,
        use_cache=False,
        trust_remote_code=True,  # as 4.56 wants it said; nothing is fetched
        **case["settings"],
    )
    return found.sequences.tolist(), found.sequences_scores.tolist()


def main() -> None:
    """Write the file, and say how many cases the order matters in."""
    torch.set_num_threads(1)
    config = LEDConfig(
        vocab_size=VOCABULARY, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8, max_encoder_position_embeddings=64,
        max_decoder_position_embeddings=POSITIONS, attention_window=8, eos_token_id=2,
    )  # fmt: skip
    model = TableLED(config).eval()
    cases = []
    for seed in range(CASES):
        case = random_case(random.Random(seed))
        sequences, scores = texts_and_scores(model, case, penalty_last=True)
        same = (sequences, scores) == texts_and_scores(model, case, penalty_last=False)
        cases.append({**case, "sequences": sequences, "scores": scores, "as_in_4.56": same})
    made = {"transformers": transformers.__version__, "vocabulary": VOCABULARY, "positions": POSITIONS}
    lines = ",\n".join(json.dumps(case) for case in cases)
    text = f'{{"made_with": {json.dumps(made)}, "cases": [\n{lines}\n]}}\n'
    (Path(__file__).parent / "group_beams.json").write_text(text, encoding="utf-8")
    print(sum(not case["as_in_4.56"] for case in cases), "of", CASES, "differ where the penalty comes before the rules")


if __name__ == "__main__":
    main()
