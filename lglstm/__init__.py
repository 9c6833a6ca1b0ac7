"""The `lglstm` command: one thin module per sub-command."""

__version__ = "0.1.0"
