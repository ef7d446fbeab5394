"""The settings of a search: settings.py states each once, with its form; resolve.py finds their values and checks them."""
