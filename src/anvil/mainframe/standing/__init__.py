"""The standing mainframe: an Architect that takes wishes and a Processor that works decks, as daemons of one home.

The Architect listens on a socket in the home, makes a deck of each wish and puts it on the card stack. The Processor
finds it there, by the cortex alone, and has it worked. What happens to a deck is written to its journal, which the
Architect reads to the client. Either may be killed at any moment: the other waits, and goes on when it is back.
"""
