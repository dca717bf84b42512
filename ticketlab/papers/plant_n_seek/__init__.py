"""Plant 'n' Seek (Fischer & Burkholz, ICLR 2022): known sparse tickets hidden in big nets."""
