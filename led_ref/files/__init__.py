"""Files and folders of every part: written so that one rename decides (staging.py), and fetched from the Hub (hub.py)."""
