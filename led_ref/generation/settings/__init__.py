"""Generation settings: settings.py (the schema), resolve.py (where a value comes from), checks.py, value_forms.py."""
