"""What may be set for a generation, where a value comes from, and which values cannot be."""
