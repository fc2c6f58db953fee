"""What the POS asks: who is this customer? Never a false "not found"."""
