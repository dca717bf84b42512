"""What `ticketlab new-paper` lays out: a whole paper called `paper_name`, to be copied and renamed.

Its code is linted and type-checked where it is; `pipeline.new_paper` says which file goes where.
"""
