"""The explorer: one HTML file in which a run of the model on a document can be walked through, with no other file or host.

    record.py     listens to one generation, and keeps what a page has room for
    fates.py      the beam search of that run, with what became of every candidate
    page.py       puts the record and the files below into one HTML file

    page.html, style.css, data.js, attention.js, views.js, beams.js       the page itself, by hand, without a framework

Begin at record.py for what is kept and how it is rounded. Nothing here computes attention for the model: the record hears
what the model tells (model/tap.py).
"""
