"""How an image gets steered: ``directions`` (straight), ``walk`` (a learned step, followed), ``trajectory`` (recomputed at every
step), ``controller`` (a value by number), ``chain`` (several in order)."""
