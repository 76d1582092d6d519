"""How an image gets steered. Three mechanisms so far: ``directions`` (straight), ``trajectory`` (recomputed at every
step), ``value`` (set by number)."""
