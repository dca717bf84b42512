"""Judge a mask from outside: is it a winning ticket? (`ticketlab judge`)."""
