"""The small trained model that comes with led_ref (MODEL_CARD.md), and its form of manual pages (manual_pages.py)."""
