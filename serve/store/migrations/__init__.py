"""How the tables came to be as `serve/store/tables.py` has them, one revision a file in `versions/`.

A new one: copy the last, name it as its `revision`, name the last in `down_revision`, change `tables.py` alike, and set
`REVISION` there. `tests/serve/store/test_migrations.py` says where the two differ. A revision that was released stays
as it is.
"""
