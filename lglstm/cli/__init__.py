"""The `lglstm` command: one thin module per sub-command."""
