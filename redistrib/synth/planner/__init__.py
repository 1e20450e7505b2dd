"""From two types to a plan: what is asked, ways to answer, and the choice between them."""
