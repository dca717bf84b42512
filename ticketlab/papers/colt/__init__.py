"""COLT (Hossain et al., 2022): masks of copies trained on different data segments, intersected."""
