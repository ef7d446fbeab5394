"""Checkpoint files: load, save and convert the weights of an LED; in reading order.

stored_tensor.py     a tensor in a mapped file, and its conversion from and to float16, bfloat16, float32, float64
safetensors_file.py  the .safetensors format, by memory map
torch_files/         pytorch_model.bin without PyTorch: two containers and a restricted pickle reader
find_files.py        the weight files of a folder, and their tensors by name
keys.py              the checkpoint keys: our field, its key, its shape
load.py              every key used once, every shape checked: LEDParams
hub.py               a Hub name to a folder
write_folder.py      a model's folder, written whole or not at all
save.py              a model in memory to a folder
convert.py           any accepted checkpoint to one model.safetensors
from_bart.py         a BART's checkpoint to an LED's
summary.py           the content of a checkpoint, without reading its numbers
quantization/        int8 and nf4 matrices, rounded and in files
"""
