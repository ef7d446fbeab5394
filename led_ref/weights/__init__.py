"""Checkpoint files: load, save and convert the weights of an LED; in reading order.

stored_tensor.py     a tensor in a mapped file, and its conversion from and to float16, bfloat16, float32, float64
safetensors_file.py  the .safetensors format, by memory map
torch_files/         pytorch_model.bin without PyTorch: two containers and a restricted pickle reader
find_files.py        a name on the Hub -> a folder -> its weight files -> their tensors by name
keys.py              the checkpoint keys: our field, its key, its shape
load.py              every key used once, every shape checked: LEDParams
save.py              a model in memory to a folder, written whole or not at all
convert.py           any accepted checkpoint to one model.safetensors
from_bart.py         a BART's checkpoint to an LED's
adapter.py           LoRA adapters in peft's files, merged into full weights
summary.py           the content of a checkpoint, without reading its numbers
quantization/        int8 and nf4 matrices, rounded and in files
"""

from typing import TYPE_CHECKING

from led_ref.lazy import hand_on

if TYPE_CHECKING:
    from led_ref.weights.convert import ConversionReport
    from led_ref.weights.from_bart import convert_bart
    from led_ref.weights.quantization.file_format import quantizable
    from led_ref.weights.quantization.rounding import quantized
    from led_ref.weights.summary import CheckpointSummary, summarize_checkpoint

__all__ = ["CheckpointSummary", "ConversionReport", "convert_bart", "quantizable", "quantized", "summarize_checkpoint"]

__getattr__, __dir__ = hand_on(
    __name__,
    {
        "convert": ("ConversionReport",),
        "from_bart": ("convert_bart",),
        "quantization.file_format": ("quantizable",),
        "quantization.rounding": ("quantized",),
        "summary": ("CheckpointSummary", "summarize_checkpoint"),
    },
)
