"""What the papers' tickets are made of: lines between nets, permutations, signs, reliability."""
