"""One folder per operator of the domain `flashrib`, and the table of them."""
