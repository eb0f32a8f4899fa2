"""Commands that measure this repository and print every number that it quotes."""
