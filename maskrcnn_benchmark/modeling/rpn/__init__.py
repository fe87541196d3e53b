"""Region proposal network: head, proposal selection, loss."""
