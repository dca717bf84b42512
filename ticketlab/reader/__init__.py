"""What people look at: the site, the difference of two revisions, the list of tickets."""
