"""The explorer: one HTML file in which a run of the model on a document can be walked through, with no other file or host.

record.py runs one generation and keeps of its intermediates as much as a page can hold, fates.py explains its beam search, and
page.py puts both into page.html with its style and scripts, which are written by hand, without a framework.
"""
