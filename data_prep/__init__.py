"""Data sets: readers that turn downloaded files into images, label maps and lists.

prepare.py      the one way every set is written: tasks in parallel, a journal, lists at the end
fashionista.py  Fashionista v0.2                 horse_cow.py  VOC 2010 photos with PASCAL-Part
atr.py          ATR                              synthetic.py  drawn animals, as PASCAL-Part
check.py        what `lglstm data check` finds   show.py       contact sheets of examples
matfiles.py     MATLAB files as plain values     mat5.py       their versions 5 to 7, strictly
parallel.py     all cores, or a Dask cluster     sources.py    finding files, lists, hash splits
"""
