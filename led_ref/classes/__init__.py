"""The classes, named as in transformers: configuration, weights and a backend held together; inputs checked; outputs named."""
