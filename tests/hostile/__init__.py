"""The hostile suite: what a recipe may try, each as a recipe with a fixed verdict, a tripwire and a negative control.

How to add an attack
--------------------
Write it into a module of this package that has a tuple ``ATTACKS`` (a new file is found by itself)::

    ATTACKS = (
        Attack(
            name="read-shadow",                          # a-z 0-9 -, unique; also the recipe's name
            cards=(1,),                                  # numbers in the list of hostile cards; () for one of our own
            script="cat @SECRET@ && echo HIT read || echo refused; echo TRIED",
            verdict=CONTAINED,                           # or jammed("regex of the reason"), refused("…"), lack("…")
            wire=secret_file,                            # the tripwire: a context manager, see tests.hostile.wires
            control=outside(),                           # the negative control, see tests.hostile.controls
        ),
    )

- ``script`` is the bash of one card called ``try`` (a recipe is made of it). For anything more give ``recipe``, the
  text of a recipe file, in which ``@NAME@`` stands for its name; ``more`` holds further recipes by name, ``files``
  what lies beside them. With ``probe=True`` the compiled ``tests/cell/probe.c`` is the input ``/in/probe``.
- ``@MARKS@`` in script and recipes are replaced by what the wire gives (``Wire.marks``), ``@SALT@`` by a fresh word.
- What an attempt achieved it tells in its log: a line that begins with ``HIT`` says that it got through. At its end
  a script says ``TRIED``, so that one that broke early is not taken for one that was held.
- The verdict is judged by the runner: *contained* is a forge that ends well, with TRIED and without any HIT in the
  logs; *jammed* and *refused* carry a regular expression for the message; *lack* is the machine's own failure, kept by
  nobody. Use *jammed* with a reason that names why, never one that any broken script would meet.
- ``as_user`` is the verdict for an ordinary user where it is another one (an ordinary user often has no cgroups).
- The wire (``Wire.harm``) looks outside of the cell and answers "" when nothing happened, else what did. Besides, the
  runner's own standing wires look after every attack: processes, mounts, staging, set-id files, core_pattern and
  the like.
- The control is a function of (ground, attack, wire) that makes the same attempt where it must succeed, and returns
  what it saw of the success ("" fails the suite). ``without(layer, …)`` forges the same recipe in another home with
  layers of the cell taken away (``tests.cell.cell_lab.Without``, or any function that patches modules: it is called in
  a process of its own); ``outside()`` runs the same script on the host as an unprivileged user, ``/out``, ``/work``,
  ``/in`` and ``/tmp`` replaced by folders of its own (``/dev/shm`` and others are not: leave nothing there). A control
  that could harm is bounded (``ulimit``, a small tmpfs). ``left(look)`` runs the script in a bare cell, without the
  mainframe's collection, and lets ``look`` see what lies in its ``/out``.
- ``limits`` lowers limits of the card that a recipe cannot name (``{"processes": 64, "log_bytes": 1 << 20}``), so that
  an attack on them takes no minutes.
- ``attempt`` replaces the one forge by a function (ground, attack, wire) -> Seen: two forges at once, a forge and then
  another, a tool of Anvil's on what was forged.
- Every attack runs twice, as root and as an ordinary user (``ground.uid``; the cell's uid on the host is
  ``ground.cell_uid``). Ask ``ground.root`` where they differ.

Running
-------
``python -m tests.hostile.runner [--user root|user] [NAME…]`` runs attacks and prints one JSON object for each; ``make
campaign-hostile`` runs all of them and writes bench/results/hostile.json; a fixed sample is in test_hostile_sample.py.
"""
