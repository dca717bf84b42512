"""DLTH / RST (Bai et al., ICLR 2022): random tickets made winning by a growing penalty."""
