"""ticketlab: four lottery-ticket papers on one bench."""
