"""Ask transformers 4.57 for the classification heads of tests/model/head_cases.py; writes classification.json beside itself.

LEDForSequenceClassification was taken out of transformers 5, so its answers are kept here. In an environment of its own:

    pip install torch==2.13.0 'transformers==4.57.*'
    PYTHONPATH=.:backends:tests/model python tests/peer/goldens/make_classification.py

float64. transformers computes the encoder's softmax in float32 whatever the rest is in. That one is lifted to float64 here,
so that a tolerance has nothing to hide; what it makes out is printed.
"""

import json
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers
from head_cases import CASES, HeadCase, draw_classification


def answer(case: HeadCase) -> dict[str, Any]:
    """The logits and the loss of one case."""
    values = {key: value for key, value in case.config.to_dict().items() if key != "model_type"}
    model = transformers.LEDForSequenceClassification(transformers.LEDConfig(**values)).double().eval()
    weights = {key: torch.from_numpy(value) for key, value in case.weights.items()}
    for side in ("encoder", "decoder"):
        weights[f"led.{side}.embed_tokens.weight"] = weights["led.shared.weight"]
    model.load_state_dict(weights)
    with torch.no_grad():
        out = model(**{key: torch.from_numpy(value) for key, value in case.call.items()})
    return {"logits": out.logits.tolist(), "loss": None if out.loss is None else out.loss.item()}


def main() -> None:
    """Write the file, and print how much the float32 softmax makes out."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_default_dtype(
        torch.float64
    )  # or it makes the decoder's mask of float64's lowest number in float32, and fails
    softmax, found, worst = torch.nn.functional.softmax, [], 0.0
    for seed in range(CASES):
        case = draw_classification(seed)
        as_it_is = answer(case)
        lifted = mock.patch("torch.nn.functional.softmax", lambda x, dim, dtype=None: softmax(x, dim=dim))
        with lifted:
            answered = answer(case)
        worst = max(worst, float((torch.tensor(as_it_is["logits"]) - torch.tensor(answered["logits"])).abs().max()))
        if answered["loss"] is not None:
            worst = max(worst, abs(as_it_is["loss"] - answered["loss"]))
        weights = sum(float(abs(array).sum()) for array in case.weights.values())
        found.append({"seed": seed, "weights": weights, **answered})
    made_by = f"transformers {transformers.__version__}, torch {torch.__version__}"
    rows = ",\n".join(json.dumps(row) for row in found)
    path = Path(__file__).with_name("classification.json")
    path.write_text(f'{{"made_by": "{made_by}", "cases": [\n{rows}\n]}}\n', encoding="utf-8")
    print(f"{path.name}: {CASES} cases; the float32 softmax makes out at most {worst:.1e}")


if __name__ == "__main__":
    main()
