"""Files and folders of every part: JSON read (json_file.py), results written whole or not (staging.py), the Hub (hub.py)."""
