"""LED itself, as pure functions `(arrays, params, config, backend) -> arrays`, over frozen dataclasses of weights."""
