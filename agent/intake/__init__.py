"""What the POS says: received, checked, stored and answered."""
