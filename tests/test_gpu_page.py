"""docs/gpu.md and docs/gpu_report.md are what the code makes of docs/data/gpu_report.json, and say what is in the tables."""

import json
from pathlib import Path

import build_gpu_page as gpu_page
import pytest
from build_gpu_page import BEAMS, CARDS, DTYPES, LENGTHS, MODELS, design_seconds

from led_ref.costs import memory as memory_plan
from led_ref.costs import operations as planning
from led_ref.costs.operations import Work, Workload

DOCS = Path(__file__).parent.parent / "docs"
REPORT = json.loads((DOCS / "data" / "gpu_report.json").read_text(encoding="utf-8"))


def test_page_matches_generator():
    page = (DOCS / "gpu.md").read_text(encoding="utf-8")
    assert all(f"<!-- {name} -->" in page for name in gpu_page.TABLES)
    assert gpu_page.filled(page, REPORT) == page
    assert (DOCS / "gpu_report.md").read_text(encoding="utf-8") == gpu_page.report_page(REPORT)


def test_page_states_last_run():
    top = (DOCS / "gpu.md").read_text(encoding="utf-8").splitlines()[:6]
    assert gpu_page.last_run(REPORT) in top
    assert "never" in gpu_page.last_run({"date": None})
    gpu = {"name": "H100", "cupy": "14.2.0", "runtime": "13.0", "driver": "13.1"}
    line = gpu_page.last_run({"date": "2030-01-02", "ok": False, "gpu": gpu})
    assert "never" not in line
    assert all(word in line for word in ("2030-01-02", "H100", "14.2.0", "driver 13.1", "some checks failed"))


def test_floor_and_share_for_the_card():
    card = gpu_page.Card("any", {"float32": 100.0}, 10.0, 1e9, 1.0, "invented")
    work = [Work("a", 500, 10, 1), Work("b", 0, 80, 1)]  # 5 s of products, 8 s of memory
    assert gpu_page.floor_seconds(planning.total(work), card, "float32") == 9
    assert design_seconds(work, card, "float32", launch=1.0) == (13, "memory")
    assert design_seconds(work, card, "float32", launch=7.0) == (14, "launches")


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
@pytest.mark.parametrize("dtype", DTYPES)
def test_page_table_statements(card, dtype):
    blocks = {
        queries: planning.window_work(
            planning.LED_BASE, Workload(tokens=16384, dtype=dtype, queries_per_block=queries), 512
        )
        for queries in (64, 128, 256, 512, 1024, 2048)
    }
    times = {queries: design_seconds([work], card, dtype)[0] for queries, work in blocks.items()}
    best = min(times, key=times.get)
    assert 512 <= best <= 2048
    assert times[1024] < 2 * times[best]
    for config in MODELS.values():
        for tokens in LENGTHS:
            load = Workload(tokens=tokens, beams=BEAMS, new_tokens=256, dtype=dtype)
            load = planning.on_gpu(config, load)
            assert design_seconds(planning.step_work(config, load, 64), card, dtype)[1] == "launches"
            assert memory_plan.plan(config, load).peak < 24e9
            least, done = gpu_page.least_encoder_work(config, load), planning.total(planning.encode_work(config, load))
            assert least.operations <= done.operations
            assert least.bytes <= done.bytes


def test_readme_matches_measurements():
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert f"on an {REPORT['gpu']['name'].rsplit(' ', 2)[0]} on {REPORT['date']}" in readme
    (ours,) = (row for row in REPORT["times"] if (row["tokens"], row["dtype"]) == (16384, "float32"))
    (theirs,) = (row for row in REPORT["transformers"]["rows"] if row["tokens"] == 16384)
    words = f"16,384 tokens read in {ours['encode ms']:.0f} ms in float32, where transformers took {theirs['encode ms']:.0f} ms"
    assert words in " ".join(readme.split())
