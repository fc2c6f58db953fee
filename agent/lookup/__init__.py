"""What the POS asks: who is this customer, and what is known of them? Never a false "not found"."""
