"""`pytorch_model.bin` without PyTorch: zip and legacy files, and a pickle reader that can do no harm."""
