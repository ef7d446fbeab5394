"""The small trained models that come with led_ref (each with a MODEL_CARD.md), and the forms of text that they learned."""
