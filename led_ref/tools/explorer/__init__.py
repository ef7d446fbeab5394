"""The explorer: one HTML file in which a run of the model on a document can be walked through, with no other file or host.

    record.py     runs one generation, and keeps of its intermediates as much as a page can hold
    fates.py      the beam search of that run, with the fate of every candidate
    page.py       puts the record and the files below into one HTML file

    page.html, style.css, data.js, attention.js, views.js, beams.js       the page itself, by hand, without a framework

record.py says what is kept and how it is rounded. Nothing here computes attention for the model: the record receives the
intermediates that the model reports (model/intermediates.py).
"""
