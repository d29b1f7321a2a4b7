"""dcmsync: ask what is there, see what is missing, move just that, prove it arrived."""

__version__ = "0.1.0"
