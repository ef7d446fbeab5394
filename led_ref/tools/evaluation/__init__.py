"""How good a model is, counted as papers count: texts by ROUGE, answers as SQuAD does, labels by accuracy and macro F1."""
