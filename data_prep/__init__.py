"""Data sets: readers that turn downloaded files into images, label maps and lists.

prepare.py      the one way every set is written: tasks in parallel, a journal, lists at the end
fashionista.py  Fashionista v0.2           horse_cow.py  VOC 2010 photos with PASCAL-Part
atr.py          ATR                        synthetic.py  drawn animals in PASCAL-Part layout
sources.py      finding files, lists, hash splits
check.py        what `lglstm data check` measures    show.py  contact sheets of examples
matfiles.py     MATLAB files as plain Python values  parallel.py  all cores, or a Dask cluster
"""
