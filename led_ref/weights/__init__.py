"""From files to parameters, in reading order.

stored.py            a tensor as it lies in a file, and float16, bfloat16, float32, float64
safetensors_file.py  the .safetensors format, by memory map
torch_bin.py         pytorch_model.bin without PyTorch, by torch_zip.py, torch_legacy.py and restricted_pickle.py
keys.py              the whole checkpoint on one screen: our field, its key, its shape
folder.py            which files of a folder hold the weights
load.py              every key used once, every shape checked: LEDParams
hub.py               a Hub name to a folder
convert.py           any accepted checkpoint to one model.safetensors
summary.py           what a checkpoint holds, without reading it
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
