"""Pages and tables for readers: the site, the difference of two revisions, the list of tickets."""
