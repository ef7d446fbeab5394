"""Text in, text out: load a model, summarize, answer, classify, in batches."""
